//! Everything before the bytes of the tensors.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{damaged, quoted};
use crate::reader::Reader;
use crate::{GgufError, Metadata, TensorType};

const MAGIC: &[u8; 4] = b"GGUF";
/// Versions whose counts have 64 bits, as all have that were written since the autumn of 2023.
const VERSIONS: [u32; 2] = [2, 3];
/// Key of the multiple that tensors begin at, and its value where the file doesn't say.
const ALIGNMENT: (&str, u64) = ("general.alignment", 32);
/// Largest multiple; more would be padding without use.
const MOST_ALIGNMENT: u64 = 1 << 20;
/// Most dimensions of a tensor.
const MOST_DIMENSIONS: u32 = 4;
/// Fewest bytes of a pair of key and value, and of the description of a tensor.
const LEAST_BYTES: [usize; 2] = [8 + 4 + 1, 8 + 4 + 4 + 8];

/// A tensor and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Sizes, the one whose elements lie next to each other last.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Bytes of the file that it takes, all of which are there.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// What the file says of itself.
    pub metadata: Metadata,
    /// Its tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads the header of a file, and checks that every tensor lies inside of it and none upon another.
    ///
    /// # Errors
    /// The bytes are no GGUF file of version 2 or 3 in little-endian order, or a tensor has a type that isn't read.
    pub fn read(file: &[u8]) -> Result<Header, GgufError> {
        let mut reader = Reader::new(file);
        let version = read_version(&mut reader)?;
        let tensors = reader.count("tensors", LEAST_BYTES[1])?;
        let pairs = reader.count("keys", LEAST_BYTES[0])?;
        let metadata = Metadata::read(&mut reader, pairs)?;
        let alignment = alignment(&metadata)?;
        let mut described = BTreeMap::new();
        for _ in 0..tensors {
            let (name, tensor) = read_tensor(&mut reader)?;
            if described.contains_key(&name) {
                return Err(damaged(format!("the tensor {} is there twice", quoted(&name))));
            }
            described.insert(name, tensor);
        }
        let place = Place { start: reader.position().next_multiple_of(alignment), alignment, length: file.len() };
        let tensors = described.into_iter().map(|(name, tensor)| {
            let tensor = place.of(&name, tensor)?;
            Ok((name, tensor))
        });
        let header = Header { version, metadata, tensors: tensors.collect::<Result<_, GgufError>>()? };
        header.refuse_overlaps()?;
        Ok(header)
    }

    fn refuse_overlaps(&self) -> Result<(), GgufError> {
        let mut ranges: Vec<(&Range<usize>, &str)> =
            self.tensors.iter().map(|(name, tensor)| (&tensor.range, name.as_str())).collect();
        ranges.retain(|(range, _)| !range.is_empty());
        ranges.sort_by_key(|(range, _)| range.start);
        let overlap = ranges.windows(2).find_map(|pair| match pair {
            [(first, one), (second, other)] if first.end > second.start => Some((*one, *other)),
            _ => None,
        });
        match overlap {
            Some((one, other)) => {
                Err(damaged(format!("the tensors {} and {} take the same bytes", quoted(one), quoted(other))))
            }
            None => Ok(()),
        }
    }
}

fn read_version(reader: &mut Reader) -> Result<u32, GgufError> {
    let magic: [u8; 4] = reader.bytes()?;
    if magic != *MAGIC {
        return Err(damaged("it doesn't begin with \"GGUF\""));
    }
    let version = reader.u32()?;
    if VERSIONS.contains(&version) {
        return Ok(version);
    }
    let reason = if VERSIONS.contains(&version.swap_bytes()) {
        "its numbers are in big-endian order; convert it with gguf-convert-endian of the Python package gguf".to_owned()
    } else {
        format!("its version is {version}; 2 and 3 are read, convert the model with a current llama.cpp")
    };
    Err(GgufError::Unsupported(reason))
}

fn alignment(metadata: &Metadata) -> Result<usize, GgufError> {
    let (key, default) = ALIGNMENT;
    let alignment = metadata.unsigned(key)?.unwrap_or(default);
    match usize::try_from(alignment) {
        Ok(size) if alignment.is_power_of_two() && alignment <= MOST_ALIGNMENT => Ok(size),
        _ => Err(damaged(format!("`{key}` is {alignment}, no power of two up to {MOST_ALIGNMENT}"))),
    }
}

/// A tensor as the header describes it.
struct Described {
    shape: Vec<usize>,
    kind: TensorType,
    /// Bytes from the first tensor on.
    offset: u64,
}

fn read_tensor(reader: &mut Reader) -> Result<(String, Described), GgufError> {
    let name = reader.text()?.to_owned();
    let dimensions = reader.u32()?;
    if dimensions > MOST_DIMENSIONS {
        let reason = format!("the tensor {} has {dimensions} dimensions, more than {MOST_DIMENSIONS}", quoted(&name));
        return Err(damaged(reason));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = reader.u64()?;
        let size = usize::try_from(size)
            .map_err(|_| damaged(format!("the tensor {} has a dimension of {size}", quoted(&name))))?;
        shape.push(size);
    }
    // Files list the innermost first.
    shape.reverse();
    let kind = TensorType::of(reader.u32()?, &name)?;
    let offset = reader.u64()?;
    Ok((name, Described { shape, kind, offset }))
}

/// Where tensors lie.
struct Place {
    /// Where offsets count from.
    start: usize,
    alignment: usize,
    /// Length of the file.
    length: usize,
}

impl Place {
    fn of(&self, name: &str, tensor: Described) -> Result<TensorInfo, GgufError> {
        let Described { shape, kind, offset } = tensor;
        let name = || quoted(name);
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.block_elements()) {
            let block = kind.block_elements();
            return Err(damaged(format!(
                "rows of the tensor {} have {row} elements, but {kind} has blocks of {block}",
                name()
            )));
        }
        let offset = usize::try_from(offset).ok().filter(|offset| offset.is_multiple_of(self.alignment));
        let Some(offset) = offset else {
            return Err(damaged(format!("the tensor {} doesn't begin at a multiple of {}", name(), self.alignment)));
        };
        let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let range = elements.and_then(|elements| {
            let bytes = (elements / kind.block_elements()).checked_mul(kind.block_bytes())?;
            let start = self.start.checked_add(offset)?;
            Some(start..start.checked_add(bytes)?)
        });
        match range {
            Some(range) if range.end <= self.length => Ok(TensorInfo { shape, kind, range }),
            _ => Err(damaged(format!(
                "the tensor {} of the shape {shape:?} and the type {kind} ends outside of the file, which has {} bytes",
                name(),
                self.length
            ))),
        }
    }
}
