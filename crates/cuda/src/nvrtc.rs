//! NVIDIA's run-time compiler, loaded where it is asked for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

use crate::error::{CudaError, Result};
use crate::library::{Functions, load_global};
use crate::specialisation::Kernel;

const REMEDY: &str = "install NVRTC (Python package nvidia-cuda-nvrtc, or the CUDA toolkit), or use a release with \
                      compiled kernels";
/// Names of the library, the newest one first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

type Program = *mut c_void;

/// The functions of NVRTC that are used; `c_int` results are 0 for success.
#[derive(Clone, Copy)]
struct Calls {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// A kernel that was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The binary for one architecture.
    pub cubin: Vec<u8>,
    /// What compiler and assembler say of it: registers, spills, warnings.
    pub log: String,
}

/// The loaded compiler; several threads may compile at once.
pub struct Nvrtc {
    calls: Calls,
    version: (u32, u32),
    _libraries: Vec<Library>,
}

impl Nvrtc {
    /// Loads the compiler from a folder, or from where the system's loader looks.
    ///
    /// # Errors
    /// It is not there, or too old.
    pub fn load(folder: Option<&Path>) -> Result<Nvrtc> {
        // The compiler looks for these by their plain name, and finds them if they are loaded already.
        let mut libraries: Vec<Library> = folder.map(builtins).unwrap_or_default();
        let place = |name: &str| folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let mut last = None;
        for name in NAMES {
            match load_global(&place(name), REMEDY) {
                Ok(library) => {
                    libraries.push(library);
                    return Nvrtc::of(libraries, name);
                }
                Err(error) => last = last.or(Some(error)),
            }
        }
        Err(last.unwrap_or_else(|| CudaError::Unsupported("no NVRTC".to_owned())))
    }

    fn of(libraries: Vec<Library>, name: &str) -> Result<Nvrtc> {
        let Some(library) = libraries.last() else {
            return Err(CudaError::Unsupported("no NVRTC".to_owned()));
        };
        let functions = Functions { library, name, remedy: REMEDY };
        // SAFETY: the signatures are those of nvrtc.h, which have not changed since CUDA 11.1.
        let calls = unsafe {
            Calls {
                version: functions.get("nvrtcVersion")?,
                create: functions.get("nvrtcCreateProgram")?,
                compile: functions.get("nvrtcCompileProgram")?,
                log_size: functions.get("nvrtcGetProgramLogSize")?,
                log: functions.get("nvrtcGetProgramLog")?,
                cubin_size: functions.get("nvrtcGetCUBINSize")?,
                cubin: functions.get("nvrtcGetCUBIN")?,
                destroy: functions.get("nvrtcDestroyProgram")?,
                error_text: functions.get("nvrtcGetErrorString")?,
            }
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are valid places for an int.
        let code = unsafe { (calls.version)(&raw mut major, &raw mut minor) };
        if code != 0 {
            return Err(CudaError::Driver { call: "nvrtcVersion", name: "no version".to_owned(), code });
        }
        let version = (major.unsigned_abs(), minor.unsigned_abs());
        Ok(Nvrtc { calls, version, _libraries: libraries })
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Compiles a kernel.
    ///
    /// # Errors
    /// The compiler refuses it; the error holds its log.
    pub fn compile(&self, kernel: Kernel) -> Result<Compiled> {
        let failed = |log: String| CudaError::Compile {
            kernel: kernel.name(),
            architecture: kernel.architecture.to_string(),
            log,
        };
        let text = |text: String| CString::new(text).map_err(|error| failed(error.to_string()));
        let (source, name) = (text(kernel.source())?, text(kernel.name())?);
        let options: Vec<CString> = kernel.options().into_iter().map(text).collect::<Result<_>>()?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(options.len()).map_err(|error| failed(error.to_string()))?;
        let mut program: Program = ptr::null_mut();
        // SAFETY: source and name are C strings that live until after the call; there are no headers.
        let code = unsafe {
            (self.calls.create)(&raw mut program, source.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null())
        };
        if code != 0 {
            return Err(failed(self.error_text(code)));
        }
        let program = Owned { program, destroy: self.calls.destroy };
        // SAFETY: the program was just made; `options` holds `count` C strings that live until after the call.
        let code = unsafe { (self.calls.compile)(program.program, count, options.as_ptr()) };
        let log = self.bytes(&program, self.calls.log_size, self.calls.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if code != 0 {
            return Err(failed(format!("{}\n{log}", self.error_text(code))));
        }
        let cubin = self.bytes(&program, self.calls.cubin_size, self.calls.cubin);
        let cubin = cubin.map_err(|code| failed(self.error_text(code)))?;
        Ok(Compiled { cubin, log })
    }

    /// What a pair of functions for size and bytes yields, or the code of its failure.
    fn bytes(
        &self,
        program: &Owned,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        copy: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> std::result::Result<Vec<u8>, c_int> {
        let mut length = 0;
        // SAFETY: the program lives, and `length` is a valid place.
        let code = unsafe { size(program.program, &raw mut length) };
        if code != 0 {
            return Err(code);
        }
        let mut bytes = vec![0u8; length];
        // SAFETY: the buffer has the size that the library has just asked for.
        let code = unsafe { copy(program.program, bytes.as_mut_ptr().cast()) };
        if code == 0 { Ok(bytes) } else { Err(code) }
    }

    fn error_text(&self, code: c_int) -> String {
        // SAFETY: the function takes any code and yields a static C string, or null.
        let text = unsafe { (self.calls.error_text)(code) };
        if text.is_null() {
            return format!("NVRTC's error {code}");
        }
        // SAFETY: it is not null, and a C string of the library's.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// A program that is destroyed with its owner.
struct Owned {
    program: Program,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the program was made by the library and is not used any more.
        unsafe { (self.destroy)(&raw mut self.program) };
    }
}

/// The compiler's built-in declarations, where its folder has them.
fn builtins(folder: &Path) -> Vec<Library> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name_of = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| name_of(path).starts_with("libnvrtc-builtins.so"));
    paths.sort();
    paths.iter().filter_map(|path| load_global(path, REMEDY).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_one_error() {
        let folder = Path::new("/nonexistent");
        let Err(error) = Nvrtc::load(Some(folder)) else { panic!("there is no such folder") };
        let text = error.to_string();
        assert!(text.contains("libnvrtc.so") && text.contains("install"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
