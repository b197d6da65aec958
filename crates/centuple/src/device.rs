//! What computes a model: the CPU, or GPUs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use centuple_generate::{Logits, Step, StepEngine, StepError, StepLimits};
use centuple_kernels::KvPrecision;
use centuple_runtime::{KvCache, Memory, Plan};
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};

use crate::cuda::{self, CudaEngine, CudaSteps, Gpu};
use crate::engine::PlanEngine;
use crate::error::Error;
use crate::generate::{GenerationOptions, PlanSteps};
use crate::host::Host;
use crate::load::Precision;

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
    /// The precisions that are worth a comparison wherever there is the device. fp8 needs more of a GPU, and int4 is f16 there, but for
    /// what its weights have lost.
    pub fn precisions(self) -> &'static [Precision] {
        match self {
            Device::Cpu => &[Precision::F32, Precision::F16, Precision::Int8, Precision::Int4],
            Device::Cuda(_) => &[Precision::F16, Precision::Int8],
        }
    }

    /// Refuses what can't be computed here: on a device that isn't there, or in a precision that it doesn't have.
    pub(crate) fn check(self, files: &CudaFiles, precision: Option<Precision>) -> Result<(), Error> {
        if let Device::Cuda(number) = self {
            cuda::probe(number, files)?;
        }
        precision.map_or(Ok(()), |precision| self.takes(precision))
    }

    /// Refuses a precision that the device doesn't have.
    pub(crate) fn takes(self, precision: Precision) -> Result<(), Error> {
        match (self, precision) {
            (Device::Cpu, Precision::Fp8) => Err(Error::OnlyCuda { what: "fp8".to_owned() }),
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

/// A model as its device computes it.
pub(crate) enum DevicePlan {
    /// On the CPU.
    Cpu { plan: Arc<Plan>, encoder: Option<Arc<Plan>> },
    /// On the GPU of a number, or on all.
    Cuda {
        plan: Box<centuple_cuda::Plan>,
        encoder: Option<Box<centuple_cuda::Plan>>,
        number: Option<usize>,
        files: CudaFiles,
    },
}

impl DevicePlan {
    /// The engine that runs it.
    ///
    /// # Errors
    /// The memory isn't granted, or what the device needs isn't there.
    pub(crate) fn engine(self, host: &Host, limits: Limits) -> Result<DeviceEngine, Error> {
        Ok(match self {
            DevicePlan::Cpu { plan, .. } => DeviceEngine::Cpu(Box::new(PlanEngine::new(host, &plan, limits)?)),
            DevicePlan::Cuda { plan, number, files, .. } => {
                DeviceEngine::Cuda(CudaEngine::new(&plan, number, &files, limits)?)
            }
        })
    }

    /// The step engine that runs it, which takes so many `positions`.
    ///
    /// # Errors
    /// As for [`DevicePlan::engine`]; or the device can't keep what the options ask for.
    pub(crate) fn steps(
        self,
        host: &Host,
        sizes: [usize; 2],
        options: &GenerationOptions,
    ) -> Result<DeviceSteps, Error> {
        Ok(match self {
            DevicePlan::Cpu { plan, encoder } => {
                DeviceSteps::Cpu(Box::new(PlanSteps::new(host, &plan, encoder.as_ref(), sizes, options)?))
            }
            DevicePlan::Cuda { plan, encoder, number, files } => {
                let encoder = encoder.map(|encoder| *encoder);
                DeviceSteps::Cuda(CudaSteps::new(*plan, encoder, number, &files, sizes, options)?)
            }
        })
    }

    /// Whether it is a decoder behind an encoder.
    pub(crate) fn has_encoder(&self) -> bool {
        match self {
            DevicePlan::Cpu { encoder, .. } => encoder.is_some(),
            DevicePlan::Cuda { encoder, .. } => encoder.is_some(),
        }
    }

    /// Bytes of a page of keys and values that are kept in a precision.
    pub(crate) fn page_bytes(&self, precision: KvPrecision) -> usize {
        match self {
            DevicePlan::Cpu { plan, .. } => KvCache::page_bytes(plan.cache_slots(), precision),
            DevicePlan::Cuda { plan, .. } => plan.page_bytes(),
        }
    }
}

/// The engine of a device.
pub enum DeviceEngine {
    /// The CPU's.
    Cpu(Box<PlanEngine>),
    /// That of GPUs.
    Cuda(CudaEngine),
}

impl DeviceEngine {
    /// Bytes that the engine takes, where it computes.
    pub fn memory(&self) -> Memory {
        match self {
            DeviceEngine::Cpu(engine) => engine.memory(),
            DeviceEngine::Cuda(engine) => engine.memory(),
        }
    }

    /// The GPUs that it computes on.
    pub fn gpus(&self) -> Vec<Arc<Gpu>> {
        match self {
            DeviceEngine::Cpu(_) => Vec::new(),
            DeviceEngine::Cuda(engine) => engine.gpus(),
        }
    }
}

impl Engine for DeviceEngine {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        match self {
            DeviceEngine::Cpu(engine) => engine.run(batch),
            DeviceEngine::Cuda(engine) => engine.run(batch),
        }
    }

    fn limits(&self) -> Limits {
        match self {
            DeviceEngine::Cpu(engine) => engine.limits(),
            DeviceEngine::Cuda(engine) => engine.limits(),
        }
    }
}

/// The step engine of a device.
pub enum DeviceSteps {
    /// The CPU's.
    Cpu(Box<PlanSteps>),
    /// That of a GPU.
    Cuda(CudaSteps),
}

impl DeviceSteps {
    /// Bytes that the engine takes besides the keys and values, where it computes.
    pub fn memory(&self) -> Memory {
        match self {
            DeviceSteps::Cpu(steps) => steps.memory(),
            DeviceSteps::Cuda(steps) => steps.memory(),
        }
    }

    /// Bytes of the keys and values of all pages.
    pub fn cache_bytes(&self) -> usize {
        match self {
            DeviceSteps::Cpu(steps) => steps.cache_bytes(),
            DeviceSteps::Cuda(steps) => steps.cache_bytes(),
        }
    }

    /// The GPU that it computes on.
    pub fn gpu(&self) -> Option<Arc<Gpu>> {
        match self {
            DeviceSteps::Cpu(_) => None,
            DeviceSteps::Cuda(steps) => Some(steps.gpu()),
        }
    }
}

impl StepEngine for DeviceSteps {
    fn limits(&self) -> StepLimits {
        match self {
            DeviceSteps::Cpu(steps) => steps.limits(),
            DeviceSteps::Cuda(steps) => steps.limits(),
        }
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        match self {
            DeviceSteps::Cpu(steps) => steps.run(step, logits),
            DeviceSteps::Cuda(steps) => steps.run(step, logits),
        }
    }
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
