//! What computes a model: the CPU, or GPUs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;
use crate::precision::Precision;

/// What computes a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA GPU by its number in the driver's order; without one, all that there are, each with the whole model.
    Cuda(Option<usize>),
}

impl Device {
    /// The precisions that are worth a comparison wherever there is the device. fp8 and bf16 need more of a GPU, and int4 is f16 there, but
    /// for what its weights have lost.
    pub fn precisions(self) -> &'static [Precision] {
        match self {
            Device::Cpu => &[Precision::F32, Precision::F16, Precision::Int8, Precision::Int4],
            Device::Cuda(_) => &[Precision::F16, Precision::Int8],
        }
    }

    /// Refuses a precision that the device doesn't have.
    pub(crate) fn takes(self, precision: Precision) -> Result<(), Error> {
        match (self, precision) {
            (Device::Cpu, Precision::Fp8 | Precision::Bf16) => Err(Error::OnlyCuda { precision }),
            (Device::Cuda(_), Precision::F32) => Err(Error::OnlyCpu { what: "a model in f32".to_owned() }),
            _ => Ok(()),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    /// Reads `cpu`, `cuda`, `cuda:N`, and `auto`, which is the CPU until a GPU has shown what it does.
    fn from_str(text: &str) -> Result<Device, String> {
        match text.split_once(':') {
            None if text == "cpu" || text == "auto" => Ok(Device::Cpu),
            None if text == "cuda" => Ok(Device::Cuda(None)),
            Some(("cuda", number)) => {
                let number = number.parse().map_err(|_| format!("`{number}` is no number of a GPU"))?;
                Ok(Device::Cuda(Some(number)))
            }
            _ => Err("the devices are cpu, cuda, cuda:N and auto".to_owned()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(None) => f.write_str("cuda"),
            Device::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

/// Where files are that only GPUs need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaFiles {
    /// NVIDIA's driver, where it isn't the one that the system's loader finds.
    pub driver: Option<PathBuf>,
    /// NVIDIA's cuBLASLt, which only fp8 needs, where it isn't the one that the system's loader finds.
    pub cublas: Option<PathBuf>,
    /// A pack of compiled kernels, with which no compiler is needed.
    pub kernels: Option<PathBuf>,
    /// A folder for kernels that are compiled here.
    pub cache: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (name, device) in [("cpu", Device::Cpu), ("cuda", Device::Cuda(None)), ("cuda:3", Device::Cuda(Some(3)))] {
            assert_eq!((name.parse(), device.to_string().as_str()), (Ok(device), name));
        }
        assert_eq!("auto".parse(), Ok(Device::Cpu));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CUDA"] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }
}
