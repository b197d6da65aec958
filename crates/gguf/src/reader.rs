//! Numbers and texts off the front of a file, never past its end.

use crate::GgufError;
use crate::error::damaged;

/// The rest of a file.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, length: bytes.len() }
    }

    /// Bytes that were read.
    pub(crate) fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(damaged(format!("it ends at byte {}, where {N} more are due", self.length)));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A number of things, each of which takes at least `least` bytes, so that there can't be more than bytes are left for.
    pub(crate) fn count(&mut self, of: &str, least: usize) -> Result<usize, GgufError> {
        let at = self.position();
        let count = self.u64()?;
        let most = self.rest.len() / least.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(damaged(format!("at byte {at} it claims {count} {of}, but {} bytes follow", self.rest.len()))),
        }
    }

    /// A text of UTF-8 after its length.
    pub(crate) fn text(&mut self) -> Result<&'a str, GgufError> {
        let at = self.position();
        let length = self.count("bytes of text", 1)?;
        let Some((text, rest)) = self.rest.split_at_checked(length) else {
            return Err(damaged(format!("the text at byte {at} ends outside of the file")));
        };
        self.rest = rest;
        str::from_utf8(text).map_err(|_| damaged(format!("the text at byte {at} is no UTF-8")))
    }
}
