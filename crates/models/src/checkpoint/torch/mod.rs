//! Files of `torch.save` that hold a state dict, without Python.
//!
//! Such a file is a pickle, a program for a stack machine that may call anything in Python. The machine here knows only what
//! a state dict of plain tensors needs; whatever else the file asks for is an error that names it, and nothing is
//! ever run. The bytes of the tensors lie beside the pickle: since torch 1.6 in a zip archive ([`archive`]), before in
//! the same stream ([`legacy`]).

mod archive;
mod legacy;
mod machine;
mod reader;
mod tensors;
mod value;

use std::collections::BTreeMap;
use std::ops::Range;

use super::stored::Stored;

/// Where a file keeps the bytes of a storage.
trait Storages {
    /// The place of the storage `key` in the file, where it is known to take `length` bytes.
    fn range(&self, key: &str, length: usize) -> Result<Range<usize>, String>;
}

/// The tensors of a file by name, or what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    if bytes.starts_with(b"PK") {
        archive::parse(bytes)
    } else if bytes.first() == Some(&machine::PROTO) {
        legacy::parse(bytes)
    } else if bytes.get(257..262) == Some(b"ustar") {
        Err("it is a tar archive of torch before 0.1.10; load and save it with a newer torch".to_string())
    } else {
        Err("it is neither a zip archive nor a pickle, which `torch.save` writes".to_string())
    }
}

/// Text of a file in the words of an error: escaped, and not longer than a line.
fn quoted(text: &str) -> String {
    const LIMIT: usize = 100;
    let short: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(LIMIT).is_some() { "…" } else { "" };
    format!("`{short}{more}`")
}
