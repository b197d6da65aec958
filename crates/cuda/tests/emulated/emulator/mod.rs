//! A device that is no device: it runs the kernels' own text on the CPU (`emulator/emulator.hpp`).
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, OsString, c_char, c_void};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bytemuck::{AnyBitPattern, NoUninit};
use centuple_cuda::{
    Argument, CudaError, Device, GraphId, Kernel, Launch, Matmul, Operation, Pointer, Result, contract,
};
use libloading::Library;
use sha2::{Digest, Sha256};

const HEADER: &str = include_str!("../../../emulator/emulator.hpp");
const FOOTER: &str = include_str!("../../../emulator/footer.hpp");

type Emulate = unsafe extern "C" fn(u32, u32, u32, usize, *mut *mut c_void, u64, *const Pages, usize) -> *const c_char;

/// Pages that a kernel may not touch while the one before it runs.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pages {
    first: *mut c_void,
    bytes: usize,
}

/// Memory, compiled kernels and captured launches.
pub(crate) struct Emulator {
    memory: Vec<Region>,
    kernels: HashMap<Kernel, Library>,
    graphs: Vec<Vec<Operation>>,
    /// Of the order in which threads run; it changes with each launch.
    seed: u64,
}

impl Emulator {
    pub(crate) fn new(seed: u64) -> Emulator {
        Emulator { memory: Vec::new(), kernels: HashMap::new(), graphs: Vec::new(), seed }
    }

    /// Runs one launch.
    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.prepare(launch.kernel)?;
        self.seed = self.seed.wrapping_add(0x9e37_79b9);
        let mut words: Vec<u64> = launch.arguments.iter().map(|argument| argument.word()).collect();
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let (threads, shared) = (launch.kernel.threads() as u32, launch.kernel.shared_bytes());
        let pages = self.pages(launch);
        // SAFETY: the library was made of emulator.hpp, whose function has this type; each argument lies in its word's
        // first bytes, and the pointers are into regions of this device, whose own the pages are.
        let message = unsafe {
            let emulate: libloading::Symbol<Emulate> =
                self.kernels[&launch.kernel].get("emulate").expect("the emulator's function");
            let [x, y] = launch.grid;
            emulate(x, y, threads, shared, places.as_mut_ptr(), self.seed, pages.as_ptr(), pages.len())
        };
        if message.is_null() {
            return Ok(());
        }
        // SAFETY: it is a C string of the library's.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        Err(CudaError::Batch(format!("{}: {message}", launch.kernel.name())))
    }

    /// The pages of all that a launch uses but weights.
    fn pages(&self, launch: &Launch) -> Vec<Pages> {
        let find = |pointer: &Pointer| {
            self.memory.iter().find(|region| (region.data as u64..region.end()).contains(&pointer.0)).map(Region::pages)
        };
        let mut pages: Vec<Pages> = Vec::new();
        let mut weights = Vec::new();
        for argument in &launch.arguments {
            match argument {
                Argument::Pointer(pointer) => pages.extend(find(pointer)),
                Argument::Weight(pointer) => weights.extend(find(pointer)),
                Argument::Int(_) | Argument::Float(_) => {}
            }
        }
        assert!(weights.iter().all(|weight| !pages.contains(weight)), "weights lie beside what kernels write");
        pages
    }

    /// Computes a product by its definition.
    fn multiply(&mut self, matmul: &Matmul) -> Result<()> {
        let Matmul { format, rows, n, k, factor, scaling, .. } = *matmul;
        let (x, weight) = (self.elements(matmul.x, rows * k)?, self.elements(matmul.weight, n * k)?);
        let scales = match scaling {
            None => None,
            Some(scaling) => {
                let bias = match scaling.bias {
                    Pointer::NULL => None,
                    bias => Some(self.elements::<u16>(bias, n)?),
                };
                Some((self.elements::<f32>(scaling.x, rows)?, self.elements::<f32>(scaling.weight, n)?, bias))
            }
        };
        let scaling = scales.as_ref().map(|(x, weight, bias)| contract::Scaling { x, weight, bias: bias.as_deref() });
        let y = contract::Matmul { format, x: &x, weight: &weight, k, n, factor, scaling }.run();
        self.write(matmul.y, bytemuck::cast_slice(&y))
    }

    fn elements<T: AnyBitPattern + NoUninit>(&mut self, from: Pointer, count: usize) -> Result<Vec<T>> {
        let mut elements = vec![T::zeroed(); count];
        self.read(from, bytemuck::cast_slice_mut(&mut elements))?;
        Ok(elements)
    }

    fn region(&self, pointer: Pointer, bytes: usize) -> Result<*mut u8> {
        let inside = |region: &&Region| {
            let start = region.data as u64;
            pointer.0 >= start && pointer.0 + bytes as u64 <= start + region.bytes as u64
        };
        let found = self.memory.iter().find(inside);
        found.ok_or_else(|| CudaError::Batch(format!("{bytes} bytes at {pointer:?} are not the device's")))?;
        Ok(pointer.0 as *mut u8)
    }
}

impl Device for Emulator {
    fn allocate(&mut self, bytes: usize) -> Result<Pointer> {
        let region = Region::new(bytes);
        let pointer = Pointer(region.data as u64);
        self.memory.push(region);
        Ok(pointer)
    }

    fn write(&mut self, to: Pointer, bytes: &[u8]) -> Result<()> {
        let place = self.region(to, bytes.len())?;
        // SAFETY: the place has room for the bytes, as `region` has checked.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: Pointer, to: Pointer, bytes: usize) -> Result<()> {
        let (from, to) = (self.region(from, bytes)?, self.region(to, bytes)?);
        // SAFETY: both have that many bytes, as `region` has checked.
        unsafe { std::ptr::copy(from, to, bytes) };
        Ok(())
    }

    fn read(&mut self, from: Pointer, bytes: &mut [u8]) -> Result<()> {
        let place = self.region(from, bytes.len())?;
        // SAFETY: that many bytes lie at the place, as `region` has checked.
        unsafe { std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn prepare(&mut self, kernel: Kernel) -> Result<()> {
        let known = Kernel::all(kernel.architecture).contains(&kernel);
        assert!(known, "{} is none of those that tests/compile.rs compiles", kernel.name());
        self.kernels.entry(kernel).or_insert_with(|| {
            // SAFETY: the library has no initialisers but those of C++'s own types.
            unsafe { Library::new(compiled(kernel)) }.expect("a library that was just compiled")
        });
        Ok(())
    }

    fn prepare_matmul(&mut self, matmul: &Matmul) -> Result<()> {
        let Matmul { n, k, .. } = *matmul;
        assert!(n.is_multiple_of(16) && k.is_multiple_of(16), "{k} by {n}: a library refuses that");
        Ok(())
    }

    fn capture(&mut self, operations: &[Operation]) -> Result<GraphId> {
        self.graphs.push(operations.to_vec());
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<()> {
        let operations = self.graphs[graph.0].clone();
        operations.iter().try_for_each(|operation| match operation {
            Operation::Launch(launch) => self.launch(launch),
            Operation::Matmul(matmul) => self.multiply(matmul),
        })
    }
}

/// The kernel as a shared library, compiled unless its text and options have been before.
pub(crate) fn compiled(kernel: Kernel) -> PathBuf {
    let machine = machine();
    // In the text and not before it, since a compiled header is of no use behind definitions.
    let definition = |option: String| option.trim_start_matches("-D").replacen('=', " ", 1);
    let definitions = kernel.definitions().into_iter().map(|option| format!("#define {}\n", definition(option)));
    let source = format!("{}{HEADER}\n{}\n{FOOTER}", definitions.collect::<String>(), kernel.portable_source());
    let library = machine.with_file_name(format!("{}.so", hash(&[&source])));
    if !library.exists() {
        let others = ["-include".into(), machine.with_file_name(MACHINE_HEADER).into(), machine.into()];
        compile(&["-shared", "-x", "c++", "-", "-x", "none"], others, &source, &library);
    }
    library
}

/// Name of the header of what is the same for all kernels.
const MACHINE_HEADER: &str = "machine.hpp";

/// The library of what is the same for all kernels, compiled unless it has been before. Its header lies beside it, compiled too.
fn machine() -> &'static Path {
    static MACHINE: OnceLock<PathBuf> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
        let read = |name| std::fs::read_to_string(sources.join(name)).expect("the emulator's sources are there");
        let [header, source] = [MACHINE_HEADER, "machine.cpp"].map(read);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated").join(hash(&[&header, &source]));
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let library = folder.join("libmachine.so");
        if !library.exists() {
            std::fs::write(folder.join(MACHINE_HEADER), &header).expect("the target folder can be written");
            let place = folder.join(MACHINE_HEADER).with_extension("hpp.gch");
            compile(&["-x", "c++-header"], [sources.join(MACHINE_HEADER).into()], "", &place);
            compile(&["-shared"], [sources.join("machine.cpp").into()], "", &library);
        }
        library
    })
}

fn hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    texts.iter().for_each(|text| hash.update(text));
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles what the arguments name, `-` being the text; the outcome is at its place when it is whole.
fn compile(arguments: &[&str], others: impl IntoIterator<Item = OsString>, text: &str, place: &Path) {
    let folder = place.parent().expect("a folder");
    let staging = tempfile::NamedTempFile::new_in(folder).expect("the target folder can be written");
    let mut command = Command::new("c++");
    command.args(["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fPIC"]).args(arguments).args(others);
    let mut compiler = command.arg("-o").arg(staging.path()).stdin(Stdio::piped()).spawn().unwrap_or_else(|error| {
        panic!("the emulator needs a C++ compiler, and `c++` doesn't run ({error}); install g++")
    });
    compiler.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the compiler reads");
    assert!(compiler.wait().expect("the compiler ends").success(), "{command:?}");
    staging.persist(place).expect("the target folder can be written");
}

/// Bytes that end where no page is: whoever reads or writes behind them ends the process.
struct Region {
    mapping: *mut c_void,
    length: usize,
    data: *mut u8,
    bytes: usize,
}

impl Region {
    fn new(bytes: usize) -> Region {
        let page = 4096;
        let padded = bytes.next_multiple_of(16);
        let room = padded.next_multiple_of(page);
        let length = room + page;
        // SAFETY: an anonymous mapping at any address; the guard page is its own last one.
        let mapping = unsafe {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let mapping = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED, "no memory");
            assert_eq!(libc::mprotect(mapping.byte_add(room), page, libc::PROT_NONE), 0, "no guard page");
            mapping
        };
        // SAFETY: the offset lies within the mapping. What nothing has written is NaN.
        let data = unsafe {
            mapping.cast::<u8>().write_bytes(0xff, room);
            mapping.cast::<u8>().add(room - padded)
        };
        Region { mapping, length, data, bytes: padded }
    }

    /// The address behind its last byte.
    fn end(&self) -> u64 {
        self.data as u64 + self.bytes as u64
    }

    /// All of its pages but the one that nobody has.
    fn pages(&self) -> Pages {
        Pages { first: self.mapping, bytes: self.end() as usize - self.mapping as usize }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's own.
        unsafe { libc::munmap(self.mapping, self.length) };
    }
}
