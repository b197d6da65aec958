//! What runs a compiled model: the CPU's engines, or those of GPUs.

use std::sync::Arc;

use centuple_generate::{Logits, Step, StepEngine, StepError, StepLimits};
use centuple_kernels::KvPrecision;
use centuple_runtime::{KvCache, Memory, Plan};
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};

use crate::cuda::{CudaEngine, CudaSteps, Gpu};
use crate::device::CudaFiles;
use crate::engine::PlanEngine;
use crate::error::Error;
use crate::generate::{GenerationOptions, PlanSteps};
use crate::host::Host;

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
