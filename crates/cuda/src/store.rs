//! Where compiled kernels come from: the release's pack, the cache on disk, the compiler.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::cache::CubinCache;
use crate::error::{CudaError, Result};
use crate::nvrtc::Nvrtc;
use crate::pack::CubinPack;
use crate::specialisation::Kernel;

/// Finds a kernel's binary, and compiles it where nobody has before.
#[derive(Default)]
pub struct KernelStore {
    pack: Option<CubinPack>,
    cache: Option<CubinCache>,
    nvrtc_folder: Option<PathBuf>,
    nvrtc: OnceLock<std::result::Result<Nvrtc, String>>,
}

impl KernelStore {
    /// A store that knows the compiler of the system only.
    pub fn new() -> KernelStore {
        KernelStore::default()
    }

    /// Looks into a pack first.
    #[must_use]
    pub fn with_pack(self, pack: CubinPack) -> KernelStore {
        KernelStore { pack: Some(pack), ..self }
    }

    /// Keeps what is compiled in a folder.
    #[must_use]
    pub fn with_cache(self, cache: CubinCache) -> KernelStore {
        KernelStore { cache: Some(cache), ..self }
    }

    /// Loads the compiler from a folder and not from where the system's loader looks.
    #[must_use]
    pub fn with_compiler(self, folder: PathBuf) -> KernelStore {
        KernelStore { nvrtc_folder: Some(folder), ..self }
    }

    /// The binary of a kernel. A cache that can't be written is no failure.
    ///
    /// # Errors
    /// Neither pack nor cache has it, and there is no compiler or it refuses it.
    pub fn cubin(&self, kernel: Kernel) -> Result<Vec<u8>> {
        if let Some(cubin) = self.pack.as_ref().and_then(|pack| pack.get(kernel)) {
            return Ok(cubin.to_vec());
        }
        let load = || Nvrtc::load(self.nvrtc_folder.as_deref()).map_err(|error| error.to_string());
        let nvrtc = self.nvrtc.get_or_init(load).as_ref().map_err(|log| CudaError::Compile {
            kernel: kernel.name(),
            architecture: kernel.architecture.to_string(),
            log: log.clone(),
        })?;
        if let Some(cubin) = self.cache.as_ref().and_then(|cache| cache.get(kernel, nvrtc.version())) {
            return Ok(cubin);
        }
        let cubin = nvrtc.compile(kernel)?.cubin;
        if let Some(cache) = &self.cache {
            // The next start compiles again; nothing else is lost.
            let _ = cache.put(kernel, nvrtc.version(), &cubin);
        }
        Ok(cubin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::pack;
    use crate::{Architecture, Format, Specialisation};

    #[test]
    fn pack_needs_no_compiler_and_without_one_the_error_says_so() -> Result<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cubins");
        let of = |format| Kernel::new(Specialisation::Widen, format, Architecture::BUILT[1]);
        std::fs::write(&path, pack(&[(of(Format::F16)?, b"binary".to_vec())])).expect("the folder can be written");
        let store = KernelStore::new().with_pack(CubinPack::open(&path)?).with_compiler(folder.path().to_owned());
        assert_eq!(store.cubin(of(Format::F16)?)?, b"binary");
        let error = store.cubin(of(Format::Bf16)?).unwrap_err().to_string();
        assert!(error.contains("widen") && error.contains("libnvrtc") && error.contains("install"), "{error}");
        Ok(())
    }
}
