//! Lines of a text file.

use super::error::{Fault, Position};
use super::table::Reading;

/// The lines of a file with their numbers from 1, without their ends (`\n` or `\r\n`) and without a byte order mark.
/// The line behind the last end is none if it is empty. Errors name lines that are too long or not UTF-8.
pub(crate) fn lines<'a>(
    bytes: &'a [u8],
    reading: Reading<'a>,
) -> impl Iterator<Item = Result<(Position, &'a str), Fault>> {
    let bytes = without_mark(bytes);
    let ended = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let split = (!bytes.is_empty()).then(|| ended.split(|&byte| byte == b'\n'));
    split.into_iter().flatten().zip(1u64..).map(move |(line, number)| {
        let position = Position::Line(number);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        reading.check_bytes(line.len()).map_err(|reason| Fault::row(position, reason))?;
        let text = utf8(line).map_err(|reason| Fault::row(position, reason))?;
        Ok((position, text))
    })
}

/// Bytes without the byte order mark of UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A text, if it is one.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        format!("byte {} of the text is not UTF-8; save the file in that encoding", error.valid_up_to() + 1)
    })
}
