//! The machine that models run on: its instruction set and its threads.

use std::sync::Arc;

use centuple_kernels::{Isa, KernelError, Kernels, ThreadPool, ceiling, default_threads};
use centuple_runtime::WeightStore;

/// What to use of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostOptions {
    /// Number of threads; by default those that affinity and control groups grant this process.
    pub threads: Option<usize>,
    /// Instruction set; by default the best one that the CPU has.
    pub isa: Option<Isa>,
}

/// A pool of threads and an instruction set, shared by all models of a process. Weights that are equal in several models
/// that are loaded by one host, as in fine-tunes of one base, take memory once.
pub struct Host {
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) isa: Isa,
    /// The weights of all models that are loaded here.
    pub(crate) weights: WeightStore,
}

impl Host {
    /// Starts the threads.
    ///
    /// # Errors
    /// The CPU lacks the instruction set, or the system grants no thread.
    pub fn new(options: &HostOptions) -> Result<Host, KernelError> {
        let isa = options.isa.unwrap_or_else(Isa::best);
        Kernels::new(isa)?;
        let pool = Arc::new(ThreadPool::new(options.threads.unwrap_or_else(default_threads))?);
        Ok(Host { pool, isa, weights: WeightStore::default() })
    }

    /// Multiply-accumulates per second, in units of 10⁹, that the threads reach on registers alone, measured now.
    ///
    /// # Errors
    /// A thread failed.
    pub fn ceiling_gmacs(&self) -> Result<f64, KernelError> {
        ceiling::giga_macs_per_second(Kernels::new(self.isa)?, &self.pool)
    }

    /// The same for products of bytes, by the fastest exact sequence of the instruction set.
    ///
    /// # Errors
    /// A thread failed.
    pub fn int8_ceiling_gmacs(&self) -> Result<f64, KernelError> {
        ceiling::giga_int8_macs_per_second(Kernels::new(self.isa)?, &self.pool)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}
