//! The driver's side on a driver that is the emulator: every call with its real signature, in an order that it accepts.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use centuple::CudaFiles;
use centuple_cuda::{
    Activation, Architecture, CacheRoom, Capacity, CodeType, CubinPack, CudaDevice, CudaError, Device, Driver, Format,
    Kernel, KernelStore, Launch, Matmul, Operation, Pointer, Pooling, Session, Specialisation, Tile, lower, lower_fp8,
    pack,
};
use libloading::Library;
use tempfile::TempDir;

use crate::checks::{self, Subject};
use crate::emulator;
use crate::encoders::{self, Failure, Input, Maker, SMALL};

const INT8: CodeType = CodeType::Integer { bits: 8 };
const TURING: Architecture = Architecture::BUILT[0];
const HOPPER: Architecture = Architecture::BUILT[5];

/// Libraries of a driver and of cuBLASLt, and a pack whose binaries are what the former takes for such.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// One whose GPU has a compute capability, and the kernels of encoders and decoders: in f16 and int8, or in fp8.
    pub(crate) fn new(architecture: Architecture, fp8: bool) -> Result<Machine, Failure> {
        let specialisations = if fp8 { fp8_specialisations } else { specialisations };
        Machine::of(architecture, Format::F16, &specialisations(architecture))
    }

    /// The same in bf16.
    pub(crate) fn bf16(architecture: Architecture) -> Result<Machine, Failure> {
        Machine::of(architecture, Format::Bf16, &specialisations(architecture))
    }

    /// One with some kernels.
    pub(crate) fn of(
        architecture: Architecture,
        format: Format,
        specialisations: &[Specialisation],
    ) -> Result<Machine, Failure> {
        let machine = Machine { folder: tempfile::tempdir()? };
        machine.compile("driver.cpp", &machine.library())?;
        machine.compile("cublas.cpp", &machine.cublas())?;
        let Architecture { major, minor, .. } = architecture;
        // SAFETY: the library has no initialisers but those of C++'s own types, and the function takes two numbers.
        unsafe {
            let library = Library::new(machine.library())?;
            library.get::<unsafe extern "C" fn(u32, u32)>("emulated_become")?(major, minor);
            // What it has become stays as long as it is loaded.
            std::mem::forget(library);
        }
        let mut kernels = Vec::new();
        for &specialisation in specialisations {
            let kernel = Kernel::new(specialisation, format, architecture)?;
            let mut image = emulator::compiled(kernel).as_os_str().as_bytes().to_vec();
            image.push(0);
            kernels.push((kernel, image));
        }
        std::fs::write(machine.kernels(), pack(&kernels))?;
        Ok(machine)
    }

    fn compile(&self, source: &str, library: &Path) -> Result<(), Failure> {
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-ffp-contract=off", "-shared", "-fPIC"]);
        compiler.arg(format!("-DDRIVER={:?}", self.library()));
        compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator").join(source));
        let status = compiler.arg("-o").arg(library).status();
        let status = status.map_err(|error| format!("`c++` doesn't run ({error}); install g++"))?;
        assert!(status.success(), "{compiler:?}");
        Ok(())
    }

    /// The same with so many GPUs.
    pub(crate) fn with_gpus(self, count: u32) -> Result<Machine, Failure> {
        // SAFETY: the library has no initialisers but those of C++'s own types, and the function takes a number.
        unsafe { Library::new(self.library())?.get::<unsafe extern "C" fn(u32)>("emulated_have")?(count) };
        Ok(self)
    }

    /// All of them.
    pub(crate) fn files(&self) -> CudaFiles {
        let [driver, cublas, kernels] = [self.library(), self.cublas(), self.kernels()].map(Some);
        CudaFiles { driver, cublas, kernels, cache: None }
    }

    fn cublas(&self) -> PathBuf {
        self.folder.path().join("libcublasLt.so.13")
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libcuda.so.1")
    }

    fn kernels(&self) -> PathBuf {
        self.folder.path().join("cubins")
    }

    fn driver(&self) -> Result<Driver, CudaError> {
        Driver::load(Some(&self.library()))
    }

    fn open(&self) -> Result<CudaDevice, CudaError> {
        // No compiler: what the pack lacks can't be had.
        let store = KernelStore::new().with_compiler(self.folder.path().to_owned());
        let store = store.with_pack(CubinPack::open(&self.kernels())?);
        Ok(CudaDevice::open(&self.driver()?, 0, store)?.with_cublas(self.cublas()))
    }

    /// What was not given back.
    fn live(&self) -> Result<i32, Failure> {
        Ok(Machine::count(&self.library(), "emulated_live")? + Machine::count(&self.cublas(), "emulated_live")?)
    }

    /// Captured kernels that wait for the one before to end before they begin.
    fn in_turn(&self) -> Result<i32, Failure> {
        Machine::count(&self.library(), "emulated_in_turn")
    }

    fn count(library: &Path, function: &str) -> Result<i32, Failure> {
        // SAFETY: the library has no initialisers but those of C++'s own types, and the function takes nothing.
        unsafe {
            let library = Library::new(library)?;
            Ok(library.get::<unsafe extern "C" fn() -> i32>(function)?())
        }
    }
}

/// What the plans of small encoders and of a small decoder ask for, in f16 and in int8.
fn specialisations(architecture: Architecture) -> Vec<Specialisation> {
    let mut all = vec![
        Specialisation::Pool(Pooling::Mean),
        Specialisation::Rotary { interleaved: false },
        Specialisation::Gate,
        Specialisation::Select,
        Specialisation::Append,
        Specialisation::Pool(Pooling::Cls),
        Specialisation::Dense,
        Specialisation::Widen,
    ];
    all.extend(
        [None, Some(CodeType::Integer { bits: 7 }), Some(INT8)].map(|codes| Specialisation::Norm { room: 256, codes }),
    );
    all.extend([7, 8].map(|bits| Specialisation::Quantise { codes: CodeType::Integer { bits } }));
    for paged in [false, true] {
        all.extend([1, 4].map(|warps| Specialisation::Attention { head_dim: 32, content: false, paged, warps }));
    }
    all.extend([1, 4].map(|warps| Specialisation::Attention { head_dim: 64, content: true, paged: false, warps }));
    for tile in 0..Tile::all(architecture).len() {
        all.push(Specialisation::GroupedGemm { tile });
        for codes in [false, true] {
            let gemm = |activation, wide| Specialisation::Gemm { codes, activation, tile, wide };
            all.extend([Activation::Identity, Activation::Gelu].map(|activation| gemm(activation, false)));
            all.push(gemm(Activation::Identity, true));
        }
    }
    all
}

/// What the same ask for in fp8.
fn fp8_specialisations(architecture: Architecture) -> Vec<Specialisation> {
    let e4m3 = CodeType::E4m3;
    let mut all = vec![
        Specialisation::Pool(Pooling::Mean),
        Specialisation::Quantise { codes: e4m3 },
        Specialisation::Rotary { interleaved: false },
        Specialisation::Gate,
        Specialisation::Select,
        Specialisation::Append,
        Specialisation::Epilogue { activation: Activation::Identity, codes: false },
        Specialisation::Epilogue { activation: Activation::Gelu, codes: true },
    ];
    all.extend([None, Some(e4m3)].map(|codes| Specialisation::Norm { room: 256, codes }));
    for paged in [false, true] {
        all.extend([1, 4].map(|warps| Specialisation::Attention { head_dim: 32, content: false, paged, warps }));
    }
    let head = |tile| Specialisation::Gemm { codes: false, activation: Activation::Identity, tile, wide: true };
    all.extend((0..Tile::all(architecture).len()).map(head));
    all
}

/// One test: the emulated driver has one state per thread, and the machine is made once.
#[test]
fn encoders_run_on_a_driver() -> Result<(), Failure> {
    let machine = Machine::new(TURING, false)?;
    let driver = machine.driver()?;
    assert_eq!(driver.version()?, (13, 1));
    let devices = driver.devices()?;
    assert_eq!((devices.len(), devices[0].name.as_str(), devices[0].multiprocessors), (1, "Emulated GPU", 6));
    assert_eq!(devices[0].capability.target(), TURING);

    let maker = Maker { make: &|| machine.open().expect("a device"), architecture: TURING };
    encoders::embeddings_are_the_references(&maker)?;
    assert_eq!(machine.live()?, 0, "everything is given back");
    assert!(machine.in_turn()? > 0, "kernels of 7.5 don't overlap");

    let (graph, _) = centuple_passes::optimize(&encoders::embedding(SMALL)?)?;
    let capacity = Capacity { tokens: 32, sequences: 4 };
    let device = machine.open()?;
    let target = device.target();
    let mut encoder = Session::new(device, lower(&graph, Format::F16)?, target, capacity, CacheRoom::default())?;
    let input = Input::new(&[7, 12], 1)?;
    let ids: [(&str, &[i64]); 2] = [("input_ids", &input.ids), ("token_type_ids", &input.types)];
    assert_eq!(encoder.time(&input.layout, &ids, 3)?, [250.0; 3]);
    drop(encoder);

    refusals(&machine, &driver)?;
    assert_eq!(machine.live()?, 0, "everything is given back after failures too");
    Ok(())
}

/// From 9.0 on kernels overlap, unless the device is told otherwise.
#[test]
fn kernels_overlap_on_a_driver() -> Result<(), Failure> {
    let machine = Machine::new(HOPPER, false)?;
    assert_eq!(machine.driver()?.devices()?[0].capability.target(), HOPPER);
    let maker = Maker { make: &|| machine.open().expect("a device"), architecture: HOPPER };
    encoders::embeddings_in_f16_are_the_references(&maker)?;
    assert_eq!((machine.live()?, machine.in_turn()?), (0, 0));
    let in_turn = || machine.open().expect("a device").in_turn();
    encoders::embeddings_in_f16_are_the_references(&Maker { make: &in_turn, architecture: HOPPER })?;
    assert!(machine.live()? == 0 && machine.in_turn()? > 0);
    Ok(())
}

/// Products of 8-bit floats on a GPU whose library multiplies by scales, and on one whose library doesn't.
#[test]
fn fp8_runs_on_a_driver() -> Result<(), Failure> {
    for architecture in [Architecture::BUILT[3], HOPPER] {
        let machine = Machine::new(architecture, true)?;
        let subject = |device| Subject { device: RefCell::new(device), sums: None, architectures: vec![architecture] };
        checks::matmul_is_its_contract(&subject(machine.open()?));
        let maker = Maker { make: &|| machine.open().expect("a device"), architecture };
        encoders::fp8::embeddings_are_the_references(&maker)?;

        let (graph, _) = centuple_passes::optimize(&encoders::embedding(SMALL)?)?;
        let capacity = Capacity { tokens: 32, sequences: 4 };
        let device = machine.open()?.with_cublas("/nonexistent/libcublasLt.so.13".into());
        let target = device.target();
        let made = Session::new(device, lower_fp8(&graph, Format::F16)?, target, capacity, CacheRoom::default());
        let error = made.err().ok_or("there is no such library")?.to_string();
        assert!(error.contains("libcublasLt.so.13") && error.contains("nvidia-cublas"), "{error}");
        assert_eq!(machine.live()?, 0, "everything is given back");
    }
    let machine = Machine::new(TURING, false)?;
    let mut device = machine.open()?;
    let place = device.allocate(1 << 10)?;
    let matmul = Matmul {
        format: Format::F16,
        x: place,
        weight: place,
        y: place,
        rows: 1,
        n: 16,
        k: 16,
        factor: 1.0,
        scaling: None,
    };
    let error = device.prepare_matmul(&matmul).unwrap_err().to_string();
    assert!(error.contains("cublasLtMatmulAlgoGetHeuristic") && error.contains("NOT_SUPPORTED"), "{error}");
    let error = device.capture(&[Operation::Matmul(matmul)]).unwrap_err().to_string();
    assert!(error.contains("not prepared"), "{error}");
    Ok(())
}

fn refusals(machine: &Machine, driver: &Driver) -> Result<(), Failure> {
    let Err(error) = CudaDevice::open(driver, 1, KernelStore::new()) else { panic!("there is one device") };
    assert!(error.to_string().contains("no CUDA device 1"), "{error}");

    let mut device = machine.open()?;
    let missing = Kernel::new(Specialisation::WideNorm, Format::F16, TURING)?;
    let error = device.prepare(missing).unwrap_err().to_string();
    assert!(error.contains("wide_norm") && error.contains("libnvrtc"), "{error}");
    let launch = Launch { kernel: missing, grid: [1, 1], arguments: Vec::new() };
    let error = device.capture(&[Operation::Launch(launch)]).unwrap_err().to_string();
    assert!(error.contains("not prepared"), "{error}");
    // The failed capture was ended: the device goes on.
    let place = device.allocate(8 << 20)?;
    let bytes: Vec<u8> = (0..8 << 20).map(|byte: u32| byte as u8).collect();
    device.write(place, &bytes)?;
    let mut found = vec![0u8; bytes.len()];
    device.read(place, &mut found)?;
    assert!(found == bytes, "copies of several parts arrive whole");
    assert!(device.write(Pointer::NULL, &[1]).is_err());

    let damaged = machine.folder.path().join("damaged");
    std::fs::write(&damaged, pack(&[(missing, b"/nonexistent\0".to_vec())]))?;
    let mut device = CudaDevice::open(driver, 0, KernelStore::new().with_pack(CubinPack::open(&damaged)?))?;
    let error = device.prepare(missing).unwrap_err().to_string();
    assert!(error.contains("cuModuleLoadData") && error.contains("CUDA_ERROR_INVALID_IMAGE"), "{error}");
    Ok(())
}
