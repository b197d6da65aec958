//! Compiled kernels on disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{CudaError, Result};
use crate::specialisation::Kernel;

/// Bytes of a SHA-256.
pub(crate) type Hash = [u8; 32];

/// What a kernel is compiled of: its text and all options, the architecture among them.
pub(crate) fn identity(kernel: Kernel) -> Hash {
    let mut hash = Sha256::new();
    for text in std::iter::once(kernel.source()).chain(kernel.options()) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

/// A folder with one file for each kernel that was ever compiled.
///
/// A file's name is the hash of what it was made of: text, options, architecture, and the compiler's version. It holds the hash of
/// its binary, and the binary; it appears when it is whole, and a damaged one counts as none.
#[derive(Clone, Debug)]
pub struct CubinCache {
    folder: PathBuf,
}

impl CubinCache {
    /// The cache in a folder, which is made when something is first written.
    pub fn new(folder: impl Into<PathBuf>) -> CubinCache {
        CubinCache { folder: folder.into() }
    }

    fn file(&self, kernel: Kernel, compiler: (u32, u32)) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(identity(kernel));
        hash.update(compiler.0.to_le_bytes());
        hash.update(compiler.1.to_le_bytes());
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.cubin"))
    }

    /// The binary of a kernel, if this version of the compiler has made it before.
    pub fn get(&self, kernel: Kernel, compiler: (u32, u32)) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.file(kernel, compiler)).ok()?;
        let (hash, cubin) = bytes.split_at_checked(size_of::<Hash>())?;
        if Sha256::digest(cubin).as_slice() != hash {
            return None;
        }
        bytes.drain(..size_of::<Hash>());
        Some(bytes)
    }

    /// Keeps a binary.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn put(&self, kernel: Kernel, compiler: (u32, u32), cubin: &[u8]) -> Result<()> {
        static STAGED: AtomicU64 = AtomicU64::new(0);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CudaError::File { path, source }
        };
        std::fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let number = STAGED.fetch_add(1, Ordering::Relaxed);
        let staging = self.folder.join(format!(".{}-{number}", std::process::id()));
        let file = self.file(kernel, compiler);
        let bytes = [&Sha256::digest(cubin)[..], cubin].concat();
        std::fs::write(&staging, bytes).map_err(failed(&staging))?;
        std::fs::rename(&staging, &file).map_err(failed(&file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, Format, Specialisation};

    #[test]
    fn damaged_and_foreign_files_are_none() -> Result<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = CubinCache::new(folder.path().join("new"));
        let kernel = Kernel::new(Specialisation::Widen, Format::F16, Architecture::OLDEST)?;
        let version = (13, 0);
        assert_eq!(cache.get(kernel, version), None);
        cache.put(kernel, version, b"binary")?;
        assert_eq!(cache.get(kernel, version).as_deref(), Some(&b"binary"[..]));
        assert_eq!(cache.get(kernel, (13, 1)), None);
        let other = Kernel::new(Specialisation::Widen, Format::F16, Architecture::BUILT[1])?;
        assert_eq!(cache.get(other, version), None);
        for damaged in [&b""[..], &[0; 32], &[7; 40]] {
            std::fs::write(cache.file(kernel, version), damaged).expect("the folder can be written");
            assert_eq!(cache.get(kernel, version), None);
        }
        cache.put(kernel, version, b"again")?;
        assert_eq!(cache.get(kernel, version).as_deref(), Some(&b"again"[..]));
        let left = std::fs::read_dir(folder.path().join("new")).expect("the folder").count();
        assert_eq!(left, 1, "nothing staged is left");
        Ok(())
    }
}
