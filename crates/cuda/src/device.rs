//! What a plan needs of a device; the driver and the tests' emulator implement it.

use crate::error::Result;
use crate::launch::{Launch, Pointer};
use crate::specialisation::Kernel;

/// A captured list of launches.
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

    /// Captures launches of prepared kernels, in their order, without running them.
    ///
    /// # Errors
    /// A kernel isn't prepared, or the driver fails.
    fn capture(&mut self, launches: &[Launch]) -> Result<GraphId>;

    /// Runs captured launches with what their buffers hold then.
    ///
    /// # Errors
    /// The driver fails.
    fn replay(&mut self, graph: GraphId) -> Result<()>;
}
