//! Libraries that are loaded at run time.
#![allow(unsafe_code)]

use std::path::Path;

use libloading::Library;
use libloading::os::unix::{self, RTLD_GLOBAL, RTLD_NOW};

use crate::error::{CudaError, Result};

/// Loads a library of NVIDIA's so that others find its symbols.
pub(crate) fn load_global(path: &Path, remedy: &'static str) -> Result<Library> {
    // SAFETY: NVIDIA's libraries may be initialised by any thread at any time.
    let loaded = unsafe { unix::Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    loaded.map(Library::from).map_err(|error| CudaError::Library {
        library: path.display().to_string(),
        // What the system's loader says.
        reason: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
        remedy,
    })
}

/// The functions of a library, which is named in errors.
pub(crate) struct Functions<'a> {
    pub(crate) library: &'a Library,
    pub(crate) name: &'a str,
    pub(crate) remedy: &'static str,
}

impl Functions<'_> {
    /// A function.
    ///
    /// # Safety
    /// `F` has to be the function's type, and must not be called after the library is closed.
    pub(crate) unsafe fn get<F: Copy>(&self, function: &'static str) -> Result<F> {
        // SAFETY: the caller vouches for the type and for the library's life.
        let found = unsafe { self.library.get::<F>(function.as_bytes()) };
        found.map(|symbol| *symbol).map_err(|_| CudaError::Symbol {
            library: self.name.to_owned(),
            function,
            remedy: self.remedy,
        })
    }
}
