//! The driver's side on a driver that is the emulator: every call with its real signature, in an order that it accepts.
#![allow(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use centuple::CudaFiles;
use centuple_cuda::{
    Activation, Architecture, CacheRoom, Capacity, CubinPack, CudaDevice, CudaError, Device, Driver, Format, Kernel,
    KernelStore, Launch, Pointer, Pooling, Session, Specialisation, Tile, lower, pack,
};
use libloading::Library;
use tempfile::TempDir;

use crate::emulator;
use crate::encoders::{self, Failure, Input, Maker, SMALL};

const TURING: Architecture = Architecture::BUILT[0];
const HOPPER: Architecture = Architecture::BUILT[5];

/// A driver's library, and a pack whose binaries are what it takes for such.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine with a GPU that runs kernels of an architecture.
    pub(crate) fn new(architecture: Architecture) -> Result<Machine, Failure> {
        let machine = Machine { folder: tempfile::tempdir()? };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator/driver.cpp");
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]).arg(source);
        compiler.args([format!("-DMAJOR={}", architecture.major), format!("-DMINOR={}", architecture.minor)]);
        let status = compiler.arg("-o").arg(machine.library()).status();
        let status = status.map_err(|error| format!("`c++` doesn't run ({error}); install g++"))?;
        assert!(status.success(), "{compiler:?}");
        let mut kernels = Vec::new();
        for specialisation in specialisations(architecture) {
            let kernel = Kernel::new(specialisation, Format::F16, architecture)?;
            let mut image = emulator::compiled(kernel).as_os_str().as_bytes().to_vec();
            image.push(0);
            kernels.push((kernel, image));
        }
        std::fs::write(machine.kernels(), pack(&kernels))?;
        Ok(machine)
    }

    /// All of its files.
    pub(crate) fn files(&self) -> CudaFiles {
        CudaFiles { driver: Some(self.library()), kernels: Some(self.kernels()), cache: None }
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
        CudaDevice::open(&self.driver()?, 0, store)
    }

    /// What was not given back.
    fn live(&self) -> Result<i32, Failure> {
        self.count("emulated_live")
    }

    /// Captured kernels that wait for the one before to end before they begin.
    fn in_turn(&self) -> Result<i32, Failure> {
        self.count("emulated_in_turn")
    }

    fn count(&self, function: &str) -> Result<i32, Failure> {
        // SAFETY: the library has no initialisers but those of C++'s own types, and the function takes nothing.
        unsafe {
            let library = Library::new(self.library())?;
            Ok(library.get::<unsafe extern "C" fn() -> i32>(function)?())
        }
    }
}

/// What the plans of a small encoder and of a small decoder ask for, in f16 and in int8.
fn specialisations(architecture: Architecture) -> Vec<Specialisation> {
    let mut all = vec![
        Specialisation::Pool(Pooling::Mean),
        Specialisation::Quantise { bits: 8 },
        Specialisation::Rotary { interleaved: false },
        Specialisation::Gate,
        Specialisation::Select,
        Specialisation::Append,
    ];
    all.extend([0, 8].map(|bits| Specialisation::Norm { room: 256, bits }));
    for paged in [false, true] {
        all.extend([1, 4].map(|warps| Specialisation::Attention { head_dim: 32, paged, warps }));
    }
    for tile in 0..Tile::all(architecture).len() {
        for codes in [false, true] {
            let gemm = |activation, wide| Specialisation::Gemm { codes, activation, tile, wide };
            all.extend([Activation::Identity, Activation::Gelu].map(|activation| gemm(activation, false)));
            all.push(gemm(Activation::Identity, true));
        }
    }
    all
}

/// One test: the emulated driver has one state per thread, and the machine is made once.
#[test]
fn encoders_run_on_a_driver() -> Result<(), Failure> {
    let machine = Machine::new(TURING)?;
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
    let machine = Machine::new(HOPPER)?;
    assert_eq!(machine.driver()?.devices()?[0].capability.target(), HOPPER);
    let maker = Maker { make: &|| machine.open().expect("a device"), architecture: HOPPER };
    encoders::embeddings_in_f16_are_the_references(&maker)?;
    assert_eq!((machine.live()?, machine.in_turn()?), (0, 0));
    let in_turn = || machine.open().expect("a device").in_turn();
    encoders::embeddings_in_f16_are_the_references(&Maker { make: &in_turn, architecture: HOPPER })?;
    assert!(machine.live()? == 0 && machine.in_turn()? > 0);
    Ok(())
}

fn refusals(machine: &Machine, driver: &Driver) -> Result<(), Failure> {
    let Err(error) = CudaDevice::open(driver, 1, KernelStore::new()) else { panic!("there is one device") };
    assert!(error.to_string().contains("no CUDA device 1"), "{error}");

    let mut device = machine.open()?;
    let widen = Kernel::new(Specialisation::Widen, Format::F16, TURING)?;
    let error = device.prepare(widen).unwrap_err().to_string();
    assert!(error.contains("widen") && error.contains("libnvrtc"), "{error}");
    let launch = Launch { kernel: widen, grid: [1, 1], arguments: Vec::new() };
    let error = device.capture(&[launch]).unwrap_err().to_string();
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
    std::fs::write(&damaged, pack(&[(widen, b"/nonexistent\0".to_vec())]))?;
    let mut device = CudaDevice::open(driver, 0, KernelStore::new().with_pack(CubinPack::open(&damaged)?))?;
    let error = device.prepare(widen).unwrap_err().to_string();
    assert!(error.contains("cuModuleLoadData") && error.contains("CUDA_ERROR_INVALID_IMAGE"), "{error}");
    Ok(())
}
