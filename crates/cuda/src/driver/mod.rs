//! NVIDIA's driver: what is there, and a [`Device`] over it.
//!
//! No test of this crate runs it on a GPU; `scripts/gpu/` has what does.

mod calls;
mod cublas;
mod device;

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::rc::Rc;

use libloading::Library;

pub use device::CudaDevice;

use crate::architecture::Architecture;
use crate::error::{CudaError, Result};
use crate::library::load_global;
use calls::{Calls, Status};

const NAME: &str = "libcuda.so.1";
const REMEDY: &str = "install NVIDIA's driver, or run on the CPU";

/// What is known of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: Architecture,
    /// Its multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of its memory.
    pub memory: usize,
}

/// The loaded driver.
#[derive(Clone)]
pub struct Driver {
    calls: Rc<Calls>,
    _library: Rc<Library>,
}

impl Driver {
    /// Loads and initialises the driver: a library at a path, or the system's.
    ///
    /// # Errors
    /// It is not there, too old, or has no device.
    pub fn load(path: Option<&Path>) -> Result<Driver> {
        let path = path.unwrap_or(Path::new(NAME));
        let library = load_global(path, REMEDY)?;
        let calls = Calls::of(&library, &path.display().to_string(), REMEDY)?;
        let driver = Driver { calls: Rc::new(calls), _library: Rc::new(library) };
        driver.check("cuInit", driver.calls.init(0))?;
        Ok(driver)
    }

    /// The newest version of CUDA that the driver knows, as major and minor number.
    ///
    /// # Errors
    /// The driver fails.
    pub fn version(&self) -> Result<(i32, i32)> {
        let mut version: c_int = 0;
        self.check("cuDriverGetVersion", self.calls.driver_get_version(&mut version))?;
        Ok((version / 1000, version % 1000 / 10))
    }

    /// All GPUs, in the driver's order.
    ///
    /// # Errors
    /// The driver fails.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        let mut count: c_int = 0;
        self.check("cuDeviceGetCount", self.calls.device_get_count(&mut count))?;
        (0..count).map(|device| self.device(device)).collect()
    }

    fn device(&self, number: c_int) -> Result<DeviceInfo> {
        let handle = self.handle(number)?;
        let mut name: [c_char; 256] = [0; 256];
        self.check("cuDeviceGetName", self.calls.device_get_name(&mut name, handle))?;
        let bytes: Vec<u8> = name.iter().map(|c| c.cast_unsigned()).collect();
        let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned();
        let mut memory = 0;
        self.check("cuDeviceTotalMem", self.calls.device_total_mem(&mut memory, handle))?;
        let [major, minor, multiprocessors] =
            [calls::MAJOR, calls::MINOR, calls::MULTIPROCESSORS].map(|attribute| self.attribute(attribute, handle));
        Ok(DeviceInfo {
            name,
            capability: Architecture::of(major?.unsigned_abs(), minor?.unsigned_abs()),
            multiprocessors: usize::try_from(multiprocessors?).unwrap_or(1),
            memory,
        })
    }

    fn handle(&self, number: c_int) -> Result<c_int> {
        let mut handle = 0;
        self.check("cuDeviceGet", self.calls.device_get(&mut handle, number))?;
        Ok(handle)
    }

    fn attribute(&self, attribute: c_int, device: c_int) -> Result<c_int> {
        let mut value = 0;
        self.check("cuDeviceGetAttribute", self.calls.device_get_attribute(&mut value, attribute, device))?;
        Ok(value)
    }

    fn check(&self, call: &'static str, status: Status) -> Result<()> {
        if status.0 == 0 {
            return Ok(());
        }
        Err(CudaError::Driver { call, name: self.calls.error_name(status), code: status.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_without_driver_is_told_so_in_one_line() {
        let Err(error) = Driver::load(Some(Path::new("/nonexistent/libcuda.so.1"))) else { panic!("there is none") };
        let text = error.to_string();
        assert!(text.contains("No such file"), "{text}");
        assert!(text.contains("libcuda.so.1") && text.contains("run on the CPU") && !text.contains('\n'), "{text}");
    }
}
