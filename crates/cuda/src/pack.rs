//! Compiled kernels of a release in one file, so that production needs the driver only.
//!
//! The file is `MAGIC`, the number of kernels as u32, for each the hash of what it was made of (text, options,
//! architecture), the hash of its binary and its length as u64, and then the binaries. Numbers are little-endian.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::cache::{Hash, identity};
use crate::error::{CudaError, Result};
use crate::specialisation::Kernel;

const MAGIC: &[u8; 16] = b"centuple cubins1";
const HASH: usize = size_of::<Hash>();
const ENTRY: usize = 2 * HASH + size_of::<u64>();

/// A pack that was read.
#[derive(Debug)]
pub struct CubinPack {
    bytes: Vec<u8>,
    /// By identity: the binary's hash and place.
    entries: HashMap<Hash, (Hash, Range<usize>)>,
}

impl CubinPack {
    /// Reads a pack's file.
    ///
    /// # Errors
    /// It can't be read, is damaged, or is no pack.
    pub fn open(path: &Path) -> Result<CubinPack> {
        let bytes = std::fs::read(path).map_err(|source| CudaError::File { path: path.to_owned(), source })?;
        CubinPack::parse(bytes).map_err(|reason| CudaError::Pack { path: path.to_owned(), reason: reason.to_owned() })
    }

    fn parse(bytes: Vec<u8>) -> std::result::Result<CubinPack, &'static str> {
        let short = "it ends too early";
        let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(short)?;
        if magic != MAGIC {
            return Err("it is no file of compiled kernels, or of another version");
        }
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
        let table = (u32::from_le_bytes(*count) as usize).checked_mul(ENTRY).ok_or(short)?;
        let (table, binaries) = rest.split_at_checked(table).ok_or(short)?;
        let mut start = bytes.len() - binaries.len();
        let mut entries = HashMap::new();
        for entry in table.chunks_exact(ENTRY) {
            let (identity, entry) = entry.split_first_chunk::<HASH>().ok_or(short)?;
            let (hash, length) = entry.split_first_chunk::<HASH>().ok_or(short)?;
            let length = length.first_chunk::<8>().ok_or(short)?;
            let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| short)?;
            let end = start.checked_add(length).filter(|&end| end <= bytes.len()).ok_or(short)?;
            entries.insert(*identity, (*hash, start..end));
            start = end;
        }
        if start != bytes.len() {
            return Err("there is something behind its end");
        }
        Ok(CubinPack { bytes, entries })
    }

    /// The binary of a kernel; `None` if the pack has none, or a damaged one.
    pub fn get(&self, kernel: Kernel) -> Option<&[u8]> {
        let (hash, place) = self.entries.get(&identity(kernel))?;
        let cubin = &self.bytes[place.clone()];
        (Sha256::digest(cubin).as_slice() == hash).then_some(cubin)
    }

    /// Number of kernels.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The bytes of a pack with these kernels.
pub fn pack(kernels: &[(Kernel, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    // There are some hundreds of kernels.
    bytes.extend((kernels.len() as u32).to_le_bytes());
    for (kernel, cubin) in kernels {
        bytes.extend(identity(*kernel));
        bytes.extend(Sha256::digest(cubin));
        bytes.extend((cubin.len() as u64).to_le_bytes());
    }
    kernels.iter().for_each(|(_, cubin)| bytes.extend(cubin));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Architecture;

    fn kernels() -> Vec<(Kernel, Vec<u8>)> {
        let all = Kernel::all(Architecture::OLDEST);
        all.into_iter().take(3).enumerate().map(|(number, kernel)| (kernel, vec![number as u8; 10 * number])).collect()
    }

    #[test]
    fn kernels_are_found_again() {
        let kernels = kernels();
        let read = CubinPack::parse(pack(&kernels)).expect("a pack");
        assert_eq!((read.len(), read.is_empty()), (3, false));
        for (kernel, cubin) in &kernels {
            assert_eq!(read.get(*kernel), Some(&cubin[..]));
        }
        assert_eq!(read.get(Kernel::all(Architecture::BUILT[1])[0]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_bytes_panic(cut in 0usize..400, place in 0usize..400, byte in any::<u8>()) {
            let kernels = kernels();
            let mut bytes = pack(&kernels);
            bytes.truncate(cut);
            prop_assert!(CubinPack::parse(bytes).is_err() || cut >= pack(&kernels).len());
            let mut bytes = pack(&kernels);
            let place = place % bytes.len();
            let same = bytes[place] == byte;
            bytes[place] = byte;
            if let Ok(read) = CubinPack::parse(bytes) {
                let whole = kernels.iter().filter(|(kernel, cubin)| read.get(*kernel) == Some(&cubin[..])).count();
                prop_assert_eq!(whole == kernels.len(), same);
            }
        }
    }
}
