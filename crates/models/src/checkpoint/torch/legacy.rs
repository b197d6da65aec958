//! What torch wrote before 1.6: pickles one after the other, then the storages.
//!
//! The pickles are a magic number, the version, a note about the machine, the state dict, and the list of the storages'
//! keys. Each storage follows in the order of that list: how many numbers it has in 8 bytes, then the numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::stored::Stored;
use super::machine::Pickle;
use super::reader::Reader;
use super::value::Value;
use super::{Storages, quoted, tensors};

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Storages by key, as parts of the file.
struct Places<'a>(BTreeMap<&'a str, Range<usize>>);

pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let magic = Pickle::run(bytes, 0)?;
    if !matches!(magic.root(), Value::Integer(MAGIC)) {
        return Err("it is a pickle, but not one of `torch.save`".to_string());
    }
    let version = Pickle::run(bytes, magic.end)?;
    if !matches!(version.root(), Value::Integer(VERSION)) {
        return Err("its version is not the only one there was, 1001".to_string());
    }
    let machine = Pickle::run(bytes, version.end)?;
    if !is_little_endian(&machine) {
        return Err("its numbers are big-endian, which is not read".to_string());
    }
    let state_dict = Pickle::run(bytes, machine.end)?;
    let keys = Pickle::run(bytes, state_dict.end)?;
    let places = places(bytes, &state_dict, &keys)?;
    tensors::of_state_dict(&state_dict, &places)
}

/// Whether the note about the machine doesn't say otherwise.
fn is_little_endian(note: &Pickle) -> bool {
    let Value::Dict(dict) = note.root() else { return false };
    let entries = dict.entries.iter().map(|&(key, value)| (note.value(key), note.value(value)));
    entries.into_iter().all(|entry| !matches!(entry, (Value::Text("little_endian"), Value::Bool(false))))
}

/// Where each storage lies.
fn places<'a>(bytes: &[u8], state_dict: &Pickle<'a>, keys: &Pickle<'a>) -> Result<Places<'a>, String> {
    let sizes: BTreeMap<&str, usize> = state_dict.storages().map(|storage| (storage.key, storage.width())).collect();
    let Value::List(list) = keys.root() else {
        return Err(format!("its list of storages is {}", keys.root().kind()));
    };
    let mut places = BTreeMap::new();
    let mut reader = Reader::at(bytes, keys.end);
    for &key in list {
        let Value::Text(key) = *keys.value(key) else {
            return Err(format!("the key of a storage is {}", keys.value(key).kind()));
        };
        let cut = |reason: String| format!("its storage {} is cut off: {reason}", quoted(key));
        let size = sizes.get(key).ok_or_else(|| format!("no tensor uses its storage {}", quoted(key)))?;
        let count = reader.u64().map_err(cut)?;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(*size));
        let length = length.ok_or_else(|| cut(format!("it claims {count} numbers")))?;
        let start = reader.position();
        reader.take(length).map_err(cut)?;
        if places.insert(key, start..reader.position()).is_some() {
            return Err(format!("its storage {} is there twice", quoted(key)));
        }
    }
    match bytes.len() - reader.position() {
        0 => Ok(Places(places)),
        rest => Err(format!("{rest} bytes follow its last storage")),
    }
}

impl Storages for Places<'_> {
    fn range(&self, key: &str, length: usize) -> Result<Range<usize>, String> {
        let range = self.0.get(key).ok_or_else(|| format!("its storage {} is not in the file", quoted(key)))?;
        if range.len() == length {
            Ok(range.clone())
        } else {
            Err(format!("its storage {} should have {length} bytes, but has {}", quoted(key), range.len()))
        }
    }
}
