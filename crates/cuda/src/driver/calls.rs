//! The driver's functions that are used, each behind a safe signature or with its conditions said.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use libloading::Library;

use crate::error::Result;
use crate::library::Functions;

/// Attributes of devices and functions, as cuda.h numbers them.
pub(super) const MULTIPROCESSORS: c_int = 16;
pub(super) const MAJOR: c_int = 75;
pub(super) const MINOR: c_int = 76;
const MAX_DYNAMIC_SHARED: c_int = 8;
const STREAM_NON_BLOCKING: c_uint = 1;
const CAPTURE_THREAD_LOCAL: c_int = 1;
/// That a kernel may begin before the one before it in the stream has ended; the value is whether.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_int = 6;

/// What a call returns; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(pub(super) c_int);

/// A handle of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Handle(*mut c_void);

impl Handle {
    pub(super) const NULL: Handle = Handle(ptr::null_mut());
}

/// `CUlaunchAttribute` of cuda.h: a number, and a union of 64 bytes that is aligned to 8.
#[repr(C, align(8))]
struct LaunchAttribute {
    id: c_int,
    padding: c_int,
    value: [c_int; 16],
}

/// `CUlaunchConfig` of cuda.h.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: Handle,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaunchShape {
    /// Blocks in both directions.
    pub(super) grid: [u32; 2],
    /// Of a block.
    pub(super) threads: u32,
    /// Of a block.
    pub(super) shared_bytes: u32,
    /// Whether it may begin before the kernel before it has ended.
    pub(super) overlaps: bool,
}

/// Declares the table of functions and reads it from a library.
macro_rules! functions {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*);)*) => {
        #[derive(Clone, Copy)]
        struct Table {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Table {
            fn of(functions: &Functions) -> Result<Table> {
                // SAFETY: the signatures are those of cuda.h for these names, which the driver keeps for ever.
                unsafe { Ok(Table { $($field: functions.get($symbol)?,)* }) }
            }
        }
    };
}

functions! {
    init = "cuInit": fn(c_uint);
    driver_get_version = "cuDriverGetVersion": fn(*mut c_int);
    device_get_count = "cuDeviceGetCount": fn(*mut c_int);
    device_get = "cuDeviceGet": fn(*mut c_int, c_int);
    device_get_name = "cuDeviceGetName": fn(*mut c_char, c_int, c_int);
    device_get_attribute = "cuDeviceGetAttribute": fn(*mut c_int, c_int, c_int);
    device_total_mem = "cuDeviceTotalMem_v2": fn(*mut usize, c_int);
    memory_info = "cuMemGetInfo_v2": fn(*mut usize, *mut usize);
    context_retain = "cuDevicePrimaryCtxRetain": fn(*mut Handle, c_int);
    context_release = "cuDevicePrimaryCtxRelease_v2": fn(c_int);
    context_set = "cuCtxSetCurrent": fn(Handle);
    allocate = "cuMemAlloc_v2": fn(*mut u64, usize);
    free = "cuMemFree_v2": fn(u64);
    allocate_host = "cuMemAllocHost_v2": fn(*mut *mut c_void, usize);
    free_host = "cuMemFreeHost": fn(*mut c_void);
    copy_to_device = "cuMemcpyHtoDAsync_v2": fn(u64, *const c_void, usize, Handle);
    copy_to_host = "cuMemcpyDtoHAsync_v2": fn(*mut c_void, u64, usize, Handle);
    copy_on_device = "cuMemcpyDtoDAsync_v2": fn(u64, u64, usize, Handle);
    stream_create = "cuStreamCreate": fn(*mut Handle, c_uint);
    stream_destroy = "cuStreamDestroy_v2": fn(Handle);
    stream_synchronize = "cuStreamSynchronize": fn(Handle);
    capture_begin = "cuStreamBeginCapture_v2": fn(Handle, c_int);
    capture_end = "cuStreamEndCapture": fn(Handle, *mut Handle);
    graph_instantiate = "cuGraphInstantiateWithFlags": fn(*mut Handle, Handle, u64);
    graph_launch = "cuGraphLaunch": fn(Handle, Handle);
    graph_destroy = "cuGraphDestroy": fn(Handle);
    graph_exec_destroy = "cuGraphExecDestroy": fn(Handle);
    module_load = "cuModuleLoadData": fn(*mut Handle, *const c_void);
    module_unload = "cuModuleUnload": fn(Handle);
    module_get_function = "cuModuleGetFunction": fn(*mut Handle, Handle, *const c_char);
    function_set_attribute = "cuFuncSetAttribute": fn(Handle, c_int, c_int);
    launch = "cuLaunchKernelEx": fn(*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    event_create = "cuEventCreate": fn(*mut Handle, c_uint);
    event_destroy = "cuEventDestroy_v2": fn(Handle);
    event_record = "cuEventRecord": fn(Handle, Handle);
    event_synchronize = "cuEventSynchronize": fn(Handle);
    event_elapsed = "cuEventElapsedTime": fn(*mut f32, Handle, Handle);
    get_error_name = "cuGetErrorName": fn(c_int, *mut *const c_char);
}

/// The functions. The library that they come from has to live longer.
pub(super) struct Calls {
    table: Table,
}

/// Calls that are sound with any arguments of their types: the driver checks handles that it has given out, and places for
/// results are references.
macro_rules! safe {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            pub(super) fn $name(&self, $($argument: $type),*) -> Status {
                // SAFETY: places for results are valid references; numbers and handles are checked by the driver.
                Status(unsafe { (self.table.$name)($($argument),*) })
            }
        )*
    };
}

impl Calls {
    pub(super) fn of(library: &Library, name: &str, remedy: &'static str) -> Result<Calls> {
        Ok(Calls { table: Table::of(&Functions { library, name, remedy })? })
    }

    safe! {
        init(flags: c_uint);
        driver_get_version(version: &mut c_int);
        device_get_count(count: &mut c_int);
        device_get(device: &mut c_int, number: c_int);
        device_get_attribute(value: &mut c_int, attribute: c_int, device: c_int);
        device_total_mem(bytes: &mut usize, device: c_int);
        memory_info(free: &mut usize, total: &mut usize);
        context_retain(context: &mut Handle, device: c_int);
        context_release(device: c_int);
        context_set(context: Handle);
        allocate(address: &mut u64, bytes: usize);
        copy_on_device(to: u64, from: u64, bytes: usize, stream: Handle);
        stream_synchronize(stream: Handle);
        capture_end(stream: Handle, graph: &mut Handle);
        graph_launch(graph: Handle, stream: Handle);
        event_record(event: Handle, stream: Handle);
        event_synchronize(event: Handle);
        event_elapsed(milliseconds: &mut f32, start: Handle, end: Handle);
    }

    pub(super) fn device_get_name(&self, name: &mut [c_char; 256], device: c_int) -> Status {
        // SAFETY: the buffer has the size that is said, less one for the end.
        Status(unsafe { (self.table.device_get_name)(name.as_mut_ptr(), 255, device) })
    }

    pub(super) fn error_name(&self, status: Status) -> String {
        let mut name = ptr::null();
        // SAFETY: the function takes any code; `name` is a valid place.
        let found = unsafe { (self.table.get_error_name)(status.0, &raw mut name) };
        if found != 0 || name.is_null() {
            return "an unknown error".to_owned();
        }
        // SAFETY: it is a static C string of the driver's.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    pub(super) fn stream_create(&self, stream: &mut Handle) -> Status {
        // SAFETY: the place is a valid reference.
        Status(unsafe { (self.table.stream_create)(stream, STREAM_NON_BLOCKING) })
    }

    pub(super) fn event_create(&self, event: &mut Handle) -> Status {
        // SAFETY: the place is a valid reference.
        Status(unsafe { (self.table.event_create)(event, 0) })
    }

    pub(super) fn capture_begin(&self, stream: Handle) -> Status {
        // SAFETY: the driver checks the stream.
        Status(unsafe { (self.table.capture_begin)(stream, CAPTURE_THREAD_LOCAL) })
    }

    pub(super) fn graph_instantiate(&self, executable: &mut Handle, graph: Handle) -> Status {
        // SAFETY: the place is a valid reference; the driver checks the graph.
        Status(unsafe { (self.table.graph_instantiate)(executable, graph, 0) })
    }

    pub(super) fn module_load(&self, module: &mut Handle, image: &[u8]) -> Status {
        // SAFETY: the driver reads no further than the image's own header says, and images come from NVRTC or from a pack
        // whose hashes were checked.
        Status(unsafe { (self.table.module_load)(module, image.as_ptr().cast()) })
    }

    pub(super) fn module_get_function(&self, function: &mut Handle, module: Handle, name: &CStr) -> Status {
        // SAFETY: the name is a C string, the place a valid reference.
        Status(unsafe { (self.table.module_get_function)(function, module, name.as_ptr()) })
    }

    pub(super) fn allow_shared_bytes(&self, function: Handle, bytes: c_int) -> Status {
        // SAFETY: the driver checks all of them.
        Status(unsafe { (self.table.function_set_attribute)(function, MAX_DYNAMIC_SHARED, bytes) })
    }

    pub(super) fn allocate_host(&self, bytes: usize) -> (Status, *mut u8) {
        let mut place = ptr::null_mut();
        // SAFETY: the place for the address is valid.
        let status = Status(unsafe { (self.table.allocate_host)(&raw mut place, bytes) });
        (status, place.cast())
    }

    /// # Safety
    /// `from` has `bytes` bytes, which stay until the stream has come by.
    pub(super) unsafe fn copy_to_device(&self, to: u64, from: *const u8, bytes: usize, stream: Handle) -> Status {
        // SAFETY: the caller vouches for the source; the driver checks the target.
        Status(unsafe { (self.table.copy_to_device)(to, from.cast(), bytes, stream) })
    }

    /// # Safety
    /// `to` has room for `bytes` bytes, which nobody touches until the stream has come by.
    pub(super) unsafe fn copy_to_host(&self, to: *mut u8, from: u64, bytes: usize, stream: Handle) -> Status {
        // SAFETY: the caller vouches for the target; the driver checks the source.
        Status(unsafe { (self.table.copy_to_host)(to.cast(), from, bytes, stream) })
    }

    /// # Safety
    /// `arguments` point to values of the types of the function's parameters, in their order, and are as many.
    pub(super) unsafe fn launch(
        &self,
        function: Handle,
        shape: LaunchShape,
        stream: Handle,
        arguments: &mut [*mut c_void],
    ) -> Status {
        let LaunchShape { grid: [x, y], threads, shared_bytes, overlaps } = shape;
        let mut value = [0; 16];
        value[0] = 1;
        let attribute = LaunchAttribute { id: PROGRAMMATIC_STREAM_SERIALIZATION, padding: 0, value };
        let config = LaunchConfig {
            grid: [x, y, 1],
            block: [threads, 1, 1],
            shared_bytes,
            stream,
            attributes: &raw const attribute,
            attribute_count: c_uint::from(overlaps),
        };
        // SAFETY: the caller vouches for the arguments, which the driver copies before it returns; so it does with the
        // configuration and its attribute, which live until then.
        Status(unsafe { (self.table.launch)(&raw const config, function, arguments.as_mut_ptr(), ptr::null_mut()) })
    }

    /// # Safety
    /// Nothing uses what is given back any more.
    pub(super) unsafe fn release(&self, resource: Resource) {
        // SAFETY: the caller vouches that it is unused. A failure leaves it to the end of the process.
        unsafe {
            match resource {
                Resource::Memory(address) => (self.table.free)(address),
                Resource::HostMemory(place) => (self.table.free_host)(place.cast()),
                Resource::Stream(stream) => (self.table.stream_destroy)(stream),
                Resource::Graph(graph) => (self.table.graph_destroy)(graph),
                Resource::GraphExecutable(graph) => (self.table.graph_exec_destroy)(graph),
                Resource::Module(module) => (self.table.module_unload)(module),
                Resource::Event(event) => (self.table.event_destroy)(event),
            };
        }
    }
}

/// What is given back to the driver.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resource {
    Memory(u64),
    HostMemory(*mut u8),
    Stream(Handle),
    Graph(Handle),
    GraphExecutable(Handle),
    Module(Handle),
    Event(Handle),
}
