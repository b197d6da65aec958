//! Little-endian numbers and names from a slice of bytes.

/// A place in a slice. Reading beyond its end is an error.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken =
            rest.get(..length).ok_or_else(|| format!("{length} bytes are needed, but {} are left", rest.len()))?;
        self.position += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text of so many bytes.
    pub(super) fn text(&mut self, length: usize) -> Result<&'a str, String> {
        str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8".to_string())
    }

    /// A name up to the end of its line.
    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        const LIMIT: usize = 1000;
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let end = rest.iter().take(LIMIT).position(|&byte| byte == b'\n').ok_or("a name does not end")?;
        let line = self.text(end)?;
        self.position += 1;
        Ok(line)
    }
}
