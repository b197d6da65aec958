//! One GPU: a context, a stream, memory, kernels and graphs.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::path::PathBuf;

use super::calls::{Handle, LaunchShape, Resource, Status};
use super::cublas::{Cublas, WORKSPACE};
use super::{DeviceInfo, Driver};
use crate::device::{Device, GraphId, Operation};
use crate::error::{CudaError, Result};
use crate::launch::{Argument, Launch, Pointer};
use crate::matmul::Matmul;
use crate::plan::Target;
use crate::specialisation::Kernel;
use crate::store::KernelStore;

/// Bytes that are copied at once, through memory that the GPU reads and writes by itself.
const STAGING: usize = 4 << 20;

/// A GPU that this thread uses. It can't be sent to another one.
pub struct CudaDevice {
    driver: Driver,
    info: DeviceInfo,
    number: c_int,
    context: Handle,
    stream: Handle,
    staging: *mut u8,
    /// Whether the stream may still read the staging memory.
    busy: bool,
    /// Whether kernels may overlap.
    overlaps: bool,
    store: KernelStore,
    functions: HashMap<Kernel, Handle>,
    cublas_path: Option<PathBuf>,
    /// There once a product is prepared.
    cublas: Option<Cublas>,
    graphs: Vec<Handle>,
    /// What is given back at the end, the last one first.
    resources: Vec<Resource>,
}

impl CudaDevice {
    /// Takes a GPU by its number, with the kernels of a store.
    ///
    /// # Errors
    /// There is no such GPU, it is too old, or the driver fails.
    pub fn open(driver: &Driver, number: usize, store: KernelStore) -> Result<CudaDevice> {
        let mut devices = driver.devices()?;
        if number >= devices.len() {
            return Err(CudaError::Device { wanted: number, found: devices.len() });
        }
        let (info, number) = (devices.swap_remove(number), c_int::try_from(number).unwrap_or(c_int::MAX));
        let mut device = CudaDevice {
            driver: driver.clone(),
            info,
            number,
            context: Handle::NULL,
            stream: Handle::NULL,
            staging: std::ptr::null_mut(),
            busy: false,
            overlaps: true,
            store,
            functions: HashMap::new(),
            cublas_path: None,
            cublas: None,
            graphs: Vec::new(),
            resources: Vec::new(),
        };
        let (calls, handle) = (&driver.calls, driver.handle(number)?);
        driver.check("cuDevicePrimaryCtxRetain", calls.context_retain(&mut device.context, handle))?;
        device.number = handle;
        device.enter()?;
        driver.check("cuStreamCreate", calls.stream_create(&mut device.stream))?;
        device.resources.push(Resource::Stream(device.stream));
        let (status, staging) = calls.allocate_host(STAGING);
        driver.check("cuMemAllocHost", status)?;
        device.staging = staging;
        device.resources.push(Resource::HostMemory(staging));
        Ok(device)
    }

    /// Has each kernel begin when the one before it has ended, on GPUs too where they may overlap.
    #[must_use]
    pub fn in_turn(mut self) -> CudaDevice {
        self.overlaps = false;
        self
    }

    /// Takes cuBLASLt from a path and not from where the system's loader finds it.
    #[must_use]
    pub fn with_cublas(mut self, path: PathBuf) -> CudaDevice {
        self.cublas_path = Some(path);
        self
    }

    /// What is known of the GPU.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes of its memory that are taken, by whomever.
    ///
    /// # Errors
    /// The driver fails.
    pub fn used_memory(&self) -> Result<usize> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        self.driver.check("cuMemGetInfo", self.driver.calls.memory_info(&mut free, &mut total))?;
        Ok(total.saturating_sub(free))
    }

    /// What launches for it are made for.
    pub fn target(&self) -> Target {
        Target { architecture: self.info.capability.target(), multiprocessors: self.info.multiprocessors }
    }

    /// Runs a captured graph so many times; the microseconds that the GPU took for each.
    ///
    /// # Errors
    /// The driver fails.
    pub fn time(&mut self, graph: GraphId, repeat: usize) -> Result<Vec<f32>> {
        self.enter()?;
        let calls = &self.driver.calls;
        let mut events = [Handle::NULL; 2];
        for event in &mut events {
            self.driver.check("cuEventCreate", calls.event_create(event))?;
            self.resources.push(Resource::Event(*event));
        }
        let mut times = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            self.driver.check("cuEventRecord", calls.event_record(events[0], self.stream))?;
            self.driver.check("cuGraphLaunch", calls.graph_launch(self.graphs[graph.0], self.stream))?;
            self.driver.check("cuEventRecord", calls.event_record(events[1], self.stream))?;
            self.driver.check("cuEventSynchronize", calls.event_synchronize(events[1]))?;
            let mut milliseconds = 0.0;
            let status = calls.event_elapsed(&mut milliseconds, events[0], events[1]);
            self.driver.check("cuEventElapsedTime", status)?;
            times.push(milliseconds * 1000.0);
        }
        Ok(times)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> Result<()> {
        self.driver.check("cuCtxSetCurrent", self.driver.calls.context_set(self.context))
    }

    fn wait(&mut self) -> Result<()> {
        self.driver.check("cuStreamSynchronize", self.driver.calls.stream_synchronize(self.stream))?;
        self.busy = false;
        Ok(())
    }

    /// Gives one launch to the stream: behind another kernel, or else behind copies, whose end no kernel waits for by itself.
    fn launch(&self, launch: &Launch, behind_kernel: bool) -> Result<()> {
        let Some(&function) = self.functions.get(&launch.kernel) else {
            return Err(CudaError::Unsupported(format!("{}, which was not prepared", launch.kernel.name())));
        };
        let mut words: Vec<u64> = launch.arguments.iter().map(|argument| argument.word()).collect();
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let numbers = [launch.kernel.threads(), launch.kernel.shared_bytes()];
        let [threads, shared_bytes] = numbers.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let overlaps = self.overlaps && behind_kernel && launch.kernel.architecture.overlaps_kernels();
        let shape = LaunchShape { grid: launch.grid, threads, shared_bytes, overlaps };
        // SAFETY: `Launch` has an argument for each parameter of its kernel, of the parameter's type, as the emulator of the
        // tests shows; on a little-endian machine each lies at the beginning of its word.
        let status = unsafe { self.driver.calls.launch(function, shape, self.stream, &mut places) };
        self.driver.check("cuLaunchKernelEx", status)
    }

    /// Gives one operation to the stream, which may follow a kernel.
    fn operate(&self, operation: &Operation, behind_kernel: bool) -> Result<()> {
        match (operation, &self.cublas) {
            (Operation::Launch(launch), _) => self.launch(launch, behind_kernel),
            (Operation::Matmul(matmul), Some(cublas)) => cublas.run(matmul, self.stream),
            (Operation::Matmul(_), None) => {
                Err(CudaError::Unsupported("a matrix product, which was not prepared".to_owned()))
            }
        }
    }

    fn check_pointer(pointer: Pointer) -> Result<()> {
        if pointer == Pointer::NULL { Err(CudaError::Batch("a copy from or to nowhere".to_owned())) } else { Ok(()) }
    }
}

impl Argument {
    /// The argument's bytes, at the beginning of a word.
    pub fn word(self) -> u64 {
        match self {
            Argument::Pointer(pointer) | Argument::Weight(pointer) => pointer.0,
            Argument::Int(number) => u64::from(number.cast_unsigned()),
            Argument::Float(number) => u64::from(number.to_bits()),
        }
    }
}

impl Device for CudaDevice {
    fn allocate(&mut self, bytes: usize) -> Result<Pointer> {
        self.enter()?;
        let mut address = 0;
        self.driver.check("cuMemAlloc", self.driver.calls.allocate(&mut address, bytes.max(1)))?;
        self.resources.push(Resource::Memory(address));
        Ok(Pointer(address))
    }

    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        CudaDevice::check_pointer(to)?;
        for (number, part) in bytes.chunks(STAGING).enumerate() {
            if self.busy {
                self.wait()?;
            }
            // SAFETY: the staging memory has room for a part, and the stream has done with it.
            let status = unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), self.staging, part.len());
                self.driver.calls.copy_to_device(to.at(number * STAGING).0, self.staging, part.len(), self.stream)
            };
            self.busy = true;
            self.driver.check("cuMemcpyHtoDAsync", status)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<()> {
        self.enter()?;
        [from, to].into_iter().try_for_each(CudaDevice::check_pointer)?;
        let status = self.driver.calls.copy_on_device(to.0, from.0, bytes, self.stream);
        self.driver.check("cuMemcpyDtoDAsync", status)
    }

    fn read(&mut self, from: Pointer, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        CudaDevice::check_pointer(from)?;
        for (number, part) in bytes.chunks_mut(STAGING).enumerate() {
            let address = from.at(number * STAGING).0;
            // SAFETY: the staging memory has room for a part; what the stream still reads of it, it reads before.
            let status = unsafe { self.driver.calls.copy_to_host(self.staging, address, part.len(), self.stream) };
            self.driver.check("cuMemcpyDtoHAsync", status)?;
            self.wait()?;
            // SAFETY: the stream has written that many bytes, and nobody else knows the memory.
            unsafe { std::ptr::copy_nonoverlapping(self.staging, part.as_mut_ptr(), part.len()) };
        }
        Ok(())
    }

    fn prepare(&mut self, kernel: Kernel) -> Result<()> {
        if self.functions.contains_key(&kernel) {
            return Ok(());
        }
        self.enter()?;
        let (cubin, calls) = (self.store.cubin(kernel)?, &self.driver.calls);
        let (mut module, mut function) = (Handle::NULL, Handle::NULL);
        self.driver.check("cuModuleLoadData", calls.module_load(&mut module, &cubin))?;
        self.resources.push(Resource::Module(module));
        let name = CString::new(kernel.name()).unwrap_or_default();
        self.driver.check("cuModuleGetFunction", calls.module_get_function(&mut function, module, &name))?;
        let bytes = c_int::try_from(kernel.shared_bytes()).unwrap_or(c_int::MAX);
        self.driver.check("cuFuncSetAttribute", calls.allow_shared_bytes(function, bytes))?;
        self.functions.insert(kernel, function);
        Ok(())
    }

    fn prepare_matmul(&mut self, matmul: &Matmul) -> Result<()> {
        self.enter()?;
        let cublas = match self.cublas.take() {
            Some(cublas) => cublas,
            None => {
                let workspace = self.allocate(WORKSPACE)?;
                Cublas::load(self.cublas_path.as_deref(), workspace)?
            }
        };
        self.cublas.insert(cublas).prepare(matmul, self.stream)
    }

    fn capture(&mut self, operations: &[Operation]) -> Result<GraphId> {
        self.enter()?;
        self.wait()?;
        let calls = &self.driver.calls;
        self.driver.check("cuStreamBeginCapture", calls.capture_begin(self.stream))?;
        let mut numbered = operations.iter().enumerate();
        let given = numbered.try_for_each(|(number, operation)| self.operate(operation, number > 0));
        // A capture has to be ended whatever came of it.
        let mut graph = Handle::NULL;
        let ended: Status = calls.capture_end(self.stream, &mut graph);
        if graph != Handle::NULL {
            self.resources.push(Resource::Graph(graph));
        }
        given?;
        self.driver.check("cuStreamEndCapture", ended)?;
        let mut executable = Handle::NULL;
        self.driver.check("cuGraphInstantiate", calls.graph_instantiate(&mut executable, graph))?;
        self.resources.push(Resource::GraphExecutable(executable));
        self.graphs.push(executable);
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<()> {
        self.enter()?;
        let Some(&graph) = self.graphs.get(graph.0) else {
            return Err(CudaError::Batch("a graph that was not captured here".to_owned()));
        };
        self.driver.check("cuGraphLaunch", self.driver.calls.graph_launch(graph, self.stream))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        if self.context == Handle::NULL || self.enter().is_err() {
            return;
        }
        // What fails here fails again with the process's end.
        let _ = self.wait();
        self.cublas = None;
        for resource in std::mem::take(&mut self.resources).into_iter().rev() {
            // SAFETY: the stream has done with all that it was given, and the device is gone after this.
            unsafe { self.driver.calls.release(resource) };
        }
        let _ = self.driver.calls.context_release(self.number);
    }
}
