//! What needs a GPU, as one program that needs the driver only. `scripts/gpu/README.md` says how it is run.
//!
//! Weights are drawn from a seed. Exit code 1 where something is wrong.

#[path = "../tests/emulated/checks/mod.rs"]
mod checks;
#[path = "../tests/emulated/encoders/mod.rs"]
mod encoders;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use centuple_cuda::{
    Architecture, CacheRoom, Capacity, CubinPack, CudaDevice, Driver, Format, Kernel, KernelStore, Nvrtc, Session,
    lower, lower_fp8, pack,
};
use centuple_passes::optimize;
use checks::Subject;
use encoders::{Failure, Input, Maker, Sizes};

const USAGE: &str = "usage: gpu pack OUT NVRTC_FOLDER   every kernel for every architecture, compiled (no GPU needed)
       gpu probe               what the driver has
       gpu kernels PACK        each kernel against its contract
       gpu encoders PACK       whole encoders against the reference evaluator, sequences alone and in company
       gpu latency PACK        microseconds of MiniLM-L6 and BERT-base in f16, medians of 1000; int8 and fp8 beside it
libcublasLt.so.13 is needed for fp8, which GPUs older than compute capability 8.9 skip";

const MINILM: Sizes = Sizes { layers: 6, hidden: 384, inner: 1536, heads: 12, vocabulary: 30522, positions: 512 };
const BERT_BASE: Sizes = Sizes { layers: 12, hidden: 768, inner: 3072, heads: 12, vocabulary: 30522, positions: 512 };

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["pack", out, nvrtc] => write_pack(Path::new(out), Path::new(nvrtc)),
        ["probe"] => probe(),
        ["kernels", pack] => kernels(pack.into()),
        ["encoders", pack] => encoders(pack.into()),
        ["latency", pack] => latency(pack.into()),
        _ => Err(USAGE.into()),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write_pack(out: &Path, nvrtc: &Path) -> Result<(), Failure> {
    let nvrtc = Nvrtc::load(Some(nvrtc))?;
    let mut kernels = Vec::new();
    for kernel in Architecture::BUILT.into_iter().flat_map(Kernel::all) {
        kernels.push((kernel, nvrtc.compile(kernel)?.cubin));
    }
    std::fs::write(out, pack(&kernels))?;
    println!("{} kernels", kernels.len());
    Ok(())
}

fn probe() -> Result<(), Failure> {
    let driver = Driver::load(None)?;
    let (major, minor) = driver.version()?;
    println!("driver for CUDA {major}.{minor}");
    for device in driver.devices()? {
        println!("{device:?}, kernels of {}", device.capability.target());
    }
    Ok(())
}

/// The first GPU.
fn open(pack: &Path) -> Result<CudaDevice, Failure> {
    let store = KernelStore::new().with_pack(CubinPack::open(pack)?);
    Ok(CudaDevice::open(&Driver::load(None)?, 0, store)?)
}

fn kernels(pack: PathBuf) -> Result<(), Failure> {
    type Check = fn(&Subject<CudaDevice>);
    let device = open(&pack)?;
    let architectures = vec![device.target().architecture];
    let subject = Subject { device: RefCell::new(device), sums: Some([2e-3, 1e-2]), architectures };
    let all: [(&str, Check); 16] = [
        ("norm", checks::norm_is_its_contract),
        ("quantise", checks::quantise_is_its_contract),
        ("gemm", checks::gemm_is_its_contract),
        ("activations", checks::gemm_ends_with_its_activation),
        ("attention", checks::attention_is_its_contract),
        ("pool", checks::pool_is_its_contract),
        ("dense", checks::dense_is_its_contract),
        ("widen", checks::widen_is_exact),
        ("wide norm", checks::wide_norm_is_its_contract),
        ("gate", checks::gate_is_its_contract),
        ("rotary", checks::rotary_is_its_contract),
        ("select", checks::select_is_its_contract),
        ("head norm", checks::head_norm_is_its_contract),
        ("wide gemm", checks::wide_gemm_is_its_contract),
        ("paged attention", checks::paged_attention_is_its_contract),
        ("epilogue", checks::epilogue_is_its_contract),
    ];
    for (name, check) in all {
        // A check panics where it fails; so does the program.
        check(&subject);
        println!("{name} ok");
    }
    Ok(())
}

/// cuBLASLt's products, where the GPU has them.
fn products(pack: &Path) -> Result<(), Failure> {
    let device = open(pack)?;
    let architectures = vec![device.target().architecture];
    let subject = Subject { device: RefCell::new(device), sums: Some([2e-3, 1e-2]), architectures };
    checks::matmul_is_its_contract(&subject);
    println!("fp8 products ok");
    Ok(())
}

fn encoders(pack: PathBuf) -> Result<(), Failure> {
    type Check = fn(&Maker<CudaDevice>) -> Result<(), Failure>;
    let architecture = open(&pack)?.target().architecture;
    let make = || open(&pack).expect("it has just been opened");
    let maker = Maker { make: &make, architecture };
    let all: [(&str, Check); 6] = [
        ("embeddings", encoders::embeddings_are_the_references),
        ("heads", encoders::heads_are_the_references),
        ("modern layers", encoders::modern_layers_are_the_references),
        ("quantised layers", encoders::quantised_layers_are_the_references),
        ("decoders", encoders::steps_are_the_references),
        ("refusals", encoders::what_does_not_fit_is_an_error),
    ];
    for (name, check) in all {
        check(&maker)?;
        println!("{name} ok");
    }
    if !architecture.has_fp8() {
        encoders::fp8::needs_a_newer_gpu(&maker)?;
        println!("fp8 refused, as {architecture} has none");
        return Ok(());
    }
    products(&pack)?;
    encoders::fp8::layers_are_the_references(&maker)?;
    println!("fp8 layers ok");
    Ok(())
}

/// Shapes that are timed in f16.
const SHAPES: [[usize; 2]; 4] = [[1, 16], [1, 128], [32, 256], [128, 128]];
/// The shape at which int8 and fp8 are timed too.
const LARGE: [usize; 2] = SHAPES[3];

fn latency(pack: PathBuf) -> Result<(), Failure> {
    println!("model\tprecision\tshape\tGPU median us\tGPU p99 us\tcall median us\ttimes as fast as f16");
    for (name, sizes) in [("MiniLM-L6", MINILM), ("BERT-base", BERT_BASE)] {
        let (graph, _) = optimize(&encoders::embedding(sizes)?)?;
        let mut plans = vec![("f16", lower(&graph, Format::F16)?, &SHAPES[..])];
        plans.push(("int8", lower(&encoders::quantised(&graph)?, Format::F16)?, &[LARGE]));
        if open(&pack)?.target().architecture.has_fp8() {
            plans.push(("fp8", lower_fp8(&graph, Format::F16)?, &[LARGE]));
        }
        let mut of_f16 = 0.0;
        for (precision, plan, shapes) in plans {
            let (device, capacity) = (open(&pack)?, Capacity { tokens: 16384, sequences: 256 });
            let target = device.target();
            let mut encoder = Session::new(device, plan, target, capacity, CacheRoom::default())?;
            for &[sequences, tokens] in shapes {
                let [median, p99, call] = microseconds(&mut encoder, [sequences, tokens])?;
                if precision == "f16" {
                    of_f16 = median;
                }
                let times = of_f16 / median;
                println!("{name}\t{precision}\t{sequences}x{tokens}\t{median:.1}\t{p99:.1}\t{call:.1}\t{times:.2}");
            }
        }
    }
    Ok(())
}

/// Of batches of that many sequences and tokens: median and p99 on the GPU, and the median of calls with their copies.
fn microseconds(encoder: &mut Session<CudaDevice>, [sequences, tokens]: [usize; 2]) -> Result<[f32; 3], Failure> {
    let input = Input::new(&vec![tokens; sequences], 3)?;
    let ids: [(&str, &[i64]); 2] = [("input_ids", &input.ids), ("token_type_ids", &input.types)];
    let repeat = if sequences == 1 { 1000 } else { 100 };
    encoder.time(&input.layout, &ids, 50)?;
    let mut times = encoder.time(&input.layout, &ids, repeat)?;
    let mut calls = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let start = Instant::now();
        encoder.run(&input.layout, &ids)?;
        calls.push(start.elapsed().as_secs_f32() * 1e6);
    }
    times.sort_by(f32::total_cmp);
    calls.sort_by(f32::total_cmp);
    Ok([times[repeat / 2], times[repeat * 99 / 100], calls[repeat / 2]])
}
