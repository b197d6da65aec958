//! What a plan needs of a device; the driver and the tests' emulator implement it.

use crate::error::Result;
use crate::launch::{Launch, Pointer};
use crate::matmul::Matmul;
use crate::specialisation::Kernel;

/// One thing that a GPU does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A kernel of this crate.
    Launch(Launch),
    /// A matrix product of a library's.
    Matmul(Matmul),
}

/// A captured list of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphId(pub usize);

/// Memory, kernels and captured graphs of one GPU. What is given to it is done in order.
pub trait Device {
    /// Memory of that many bytes, aligned to 256; it lives as long as the device.
    ///
    /// # Errors
    /// There is not enough.
    fn allocate(&mut self, bytes: usize) -> Result<Pointer>;

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// The driver fails.
    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<()>;

    /// Copies bytes from one place on the device to another, which doesn't overlap it.
    ///
    /// # Errors
    /// The driver fails.
    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<()>;

    /// Waits for all that was given, and copies bytes from the device.
    ///
    /// # Errors
    /// The driver fails, or a kernel has.
    fn read(&mut self, from: Pointer, bytes: &mut [u8]) -> Result<()>;

    /// Makes a kernel ready for launches.
    ///
    /// # Errors
    /// It can't be had for this device.
    fn prepare(&mut self, kernel: Kernel) -> Result<()>;

    /// Makes a matrix product ready, and may run it once. The first one of its n and k has the most rows that there will be: what
    /// is chosen for it goes for fewer rows too, so that rows don't depend on how many there are.
    ///
    /// # Errors
    /// The library isn't there, or it has no such product for this device.
    fn prepare_matmul(&mut self, matmul: &Matmul) -> Result<()>;

    /// Captures prepared operations, in their order, without running them.
    ///
    /// # Errors
    /// A kernel or a product isn't prepared, or the driver fails.
    fn capture(&mut self, operations: &[Operation]) -> Result<GraphId>;

    /// Runs captured operations with what their buffers hold then.
    ///
    /// # Errors
    /// The driver fails.
    fn replay(&mut self, graph: GraphId) -> Result<()>;
}
