//! The zip archive that torch writes since 1.6.
//!
//! It has one folder with `data.pkl`, the storages `data/KEY`, and small notes. Records are stored as they are, never
//! compressed, so a tensor is a part of the file. All lengths are checked against the file, and all checksums.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::stored::Stored;
use super::machine::Pickle;
use super::reader::Reader;
use super::{Storages, quoted, tensors};

/// The largest pickle that is run: about a hundred thousand tensors.
const PICKLE_LIMIT: usize = 16 << 20;

const END: u32 = 0x0605_4b50;
const END_LENGTH: usize = 22;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const LOCATOR64_LENGTH: usize = 20;
const ENTRY: u32 = 0x0201_4b50;
const RECORD: u32 = 0x0403_4b50;
/// The identity of the extra field with 64-bit sizes.
const EXTRA64: u16 = 1;
/// A size or an offset that is in that field.
const IN_EXTRA: u32 = u32::MAX;

/// Records by name, as parts of the file.
struct Archive<'a> {
    records: BTreeMap<&'a str, Range<usize>>,
    /// The name of the folder with everything in it.
    folder: &'a str,
}

pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let archive = Archive::open(bytes)?;
    if archive.record("constants.pkl").is_some() {
        return Err("it is a TorchScript program, not a state dict".to_string());
    }
    if let Some(order) = archive.record("byteorder").and_then(|range| bytes.get(range))
        && order != b"little"
    {
        return Err("its numbers are big-endian, which is not read".to_string());
    }
    let pickle = archive.record("data.pkl").and_then(|range| bytes.get(range)).ok_or("its archive has no data.pkl")?;
    if pickle.len() > PICKLE_LIMIT {
        return Err(format!("its pickle has {} bytes, more than {PICKLE_LIMIT}", pickle.len()));
    }
    tensors::of_state_dict(&Pickle::run(pickle, 0)?, &archive)
}

impl Storages for Archive<'_> {
    fn range(&self, key: &str, length: usize) -> Result<Range<usize>, String> {
        let range = self.record(&format!("data/{key}"));
        let range = range.ok_or_else(|| format!("its storage {} is not in the archive", quoted(key)))?;
        if range.len() == length {
            Ok(range)
        } else {
            Err(format!("its storage {} should have {length} bytes, but has {}", quoted(key), range.len()))
        }
    }
}

impl<'a> Archive<'a> {
    fn record(&self, name: &str) -> Option<Range<usize>> {
        self.records.get(format!("{}/{name}", self.folder).as_str()).cloned()
    }

    /// Reads the directory at the end of the file and checks every record that it lists.
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let (count, directory) = find_directory(bytes)?;
        let mut reader = Reader::at(bytes.get(..directory.end).unwrap_or_default(), directory.start);
        let mut records = BTreeMap::new();
        let mut left = bytes.len();
        for position in 0..count {
            let entry =
                Entry::read(&mut reader).map_err(|reason| format!("entry {position} of its archive: {reason}"))?;
            let name = entry.name;
            let damaged = |reason: String| format!("the record {} of its archive {reason}", quoted(name));
            let range = entry.locate(bytes).map_err(damaged)?;
            left = left.checked_sub(range.len()).ok_or_else(|| damaged("overlaps others".to_string()))?;
            let found = crc32fast::hash(bytes.get(range.clone()).unwrap_or_default());
            if found != entry.checksum {
                return Err(damaged(format!(
                    "has the checksum {found:08x}, not {:08x}: it is damaged",
                    entry.checksum
                )));
            }
            if records.insert(name, range).is_some() {
                return Err(damaged("is there twice".to_string()));
            }
        }
        let folders = records.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
        let folder = folders.min_by_key(|folder| folder.len()).ok_or("its archive has no data.pkl")?;
        Ok(Self { records, folder })
    }
}

/// How many entries the directory has, and where it lies.
fn find_directory(bytes: &[u8]) -> Result<(u64, Range<usize>), String> {
    let cut = || "its archive has no directory at its end: the file is cut off or damaged".to_string();
    let end = bytes.len().checked_sub(END_LENGTH).ok_or_else(cut)?;
    let mut reader = Reader::at(bytes, end);
    if reader.u32()? != END {
        return Err(cut());
    }
    let _disks = reader.u32()?;
    let _on_this_disk = reader.u16()?;
    let mut count = u64::from(reader.u16()?);
    let mut length = u64::from(reader.u32()?);
    let mut start = u64::from(reader.u32()?);
    if let Some(locator) = end.checked_sub(LOCATOR64_LENGTH) {
        let mut reader = Reader::at(bytes, locator);
        if reader.u32()? == LOCATOR64 {
            let _disk = reader.u32()?;
            let place = usize::try_from(reader.u64()?).map_err(|_| cut())?;
            let mut reader = Reader::at(bytes, place);
            if reader.u32()? != END64 {
                return Err(cut());
            }
            // Its own length, versions, disks, and the entries on this disk.
            reader.take(8 + 4 + 8 + 8)?;
            (count, length, start) = (reader.u64()?, reader.u64()?, reader.u64()?);
        }
    }
    let start = usize::try_from(start).map_err(|_| cut())?;
    let stop = usize::try_from(length).ok().and_then(|length| start.checked_add(length)).ok_or_else(cut)?;
    if stop > end { Err(cut()) } else { Ok((count, start..stop)) }
}

/// An entry of the directory.
struct Entry<'a> {
    name: &'a str,
    checksum: u32,
    length: usize,
    /// Where the record starts, with a header of its own.
    offset: usize,
}

impl<'a> Entry<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, String> {
        if reader.u32()? != ENTRY {
            return Err("it is damaged".to_string());
        }
        let _versions = reader.u32()?;
        let flags = reader.u16()?;
        let method = reader.u16()?;
        let _time = reader.u32()?;
        let checksum = reader.u32()?;
        let (packed, unpacked) = (reader.u32()?, reader.u32()?);
        let (name_length, extra_length, comment_length) = (reader.u16()?, reader.u16()?, reader.u16()?);
        // Disk and attributes.
        reader.take(8)?;
        let offset = reader.u32()?;
        let name = reader.text(name_length.into())?;
        let extra = reader.take(extra_length.into())?;
        reader.take(comment_length.into())?;
        let outside = |part: &str| matches!(part, "" | "." | "..");
        if name.split('/').any(outside) || name.contains(['\\', '\0']) {
            return Err(format!("the name {} leads out of the archive", quoted(name)));
        }
        if flags & 1 != 0 {
            return Err(format!("the record {} is encrypted", quoted(name)));
        }
        let [unpacked, packed, offset] = widened(extra, [unpacked, packed, offset])?;
        if method != 0 || packed != unpacked {
            return Err(format!("the record {} is compressed, which torch never does", quoted(name)));
        }
        let whole = |number: u64| usize::try_from(number).map_err(|_| format!("the number {number} is too large"));
        Ok(Self { name, checksum, length: whole(packed)?, offset: whole(offset)? })
    }

    /// The bytes of the record after its header.
    fn locate(&self, bytes: &[u8]) -> Result<Range<usize>, String> {
        let mut reader = Reader::at(bytes, self.offset);
        let mut header = || {
            let signature = reader.u32()?;
            reader.take(22)?;
            let (name, extra) = (reader.u16()?, reader.u16()?);
            reader.take(usize::from(name) + usize::from(extra))?;
            Ok::<_, String>((signature, reader.position()))
        };
        let Ok((RECORD, start)) = header() else {
            return Err("has no header: the file is cut off or damaged".to_string());
        };
        let end = start.checked_add(self.length).filter(|&end| end <= bytes.len());
        end.map(|end| start..end).ok_or_else(|| format!("claims {} bytes, beyond the end of the file", self.length))
    }
}

/// The sizes of an entry, taken from its extra field where they need 64 bits.
fn widened(extra: &[u8], short: [u32; 3]) -> Result<[u64; 3], String> {
    let mut sizes = short.map(u64::from);
    if !short.contains(&IN_EXTRA) {
        return Ok(sizes);
    }
    let mut reader = Reader::at(extra, 0);
    while reader.position() < extra.len() {
        let (identity, length) = (reader.u16()?, reader.u16()?);
        let field = reader.take(length.into())?;
        if identity == EXTRA64 {
            let mut field = Reader::at(field, 0);
            for (size, short) in sizes.iter_mut().zip(short) {
                if short == IN_EXTRA {
                    *size = field.u64()?;
                }
            }
            return Ok(sizes);
        }
    }
    Err("its 64-bit sizes are missing".to_string())
}
