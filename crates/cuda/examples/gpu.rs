//! What needs a GPU, as one program that needs the driver only. `scripts/gpu/README.md` says how it is run.
//!
//! Weights are drawn from a seed. Exit code 1 where something is wrong.

#[path = "../tests/emulated/checks/mod.rs"]
mod checks;
#[path = "../tests/emulated/encoders/mod.rs"]
mod encoders;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use centuple_cuda::{
    Architecture, CacheRoom, Capacity, CubinPack, CudaDevice, Driver, Format, Kernel, KernelStore, Nvrtc, Session,
    Target, lower, lower_fp8, pack,
};
use centuple_passes::{Quantization, optimize};
use centuple_testkit::Random;
use checks::Subject;
use encoders::{Failure, Input, Maker, Sizes};

const USAGE: &str = "usage: gpu pack OUT NVRTC_FOLDER   every kernel for every architecture, compiled (no GPU needed)
       gpu probe               what the driver has
       gpu kernels PACK        each kernel against its contract
       gpu encoders PACK       whole encoders against the reference evaluator, sequences alone and in company
       gpu latency PACK        microseconds of MiniLM-L6 and BERT-base, medians of 1000, and whether targets are met

Kernels and latency are those of each architecture with the GPU's numbers: of sm_90 as of sm_90a. Where kernels can begin before the
ones before them have ended, latency is measured with that and without. libcublasLt.so.13 is needed
for fp8, which GPUs older than compute capability 8.9 skip.";

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

/// What kernels are compiled for that are made for the GPU's generation.
fn architectures(device: &CudaDevice) -> Vec<Architecture> {
    let target = device.target().architecture;
    let of_it = |built: &Architecture| (built.major, built.minor) == (target.major, target.minor);
    Architecture::BUILT.into_iter().filter(of_it).collect()
}

fn kernels(pack: PathBuf) -> Result<(), Failure> {
    type Check = fn(&Subject<CudaDevice>);
    let device = open(&pack)?;
    let architectures = architectures(&device);
    let subject = Subject { device: RefCell::new(device), sums: Some([2e-3, 1e-2]), architectures };
    let all: [(&str, Check); 19] = [
        ("norm", checks::norm_is_its_contract),
        ("quantise", checks::quantise_is_its_contract),
        ("gemm", checks::gemm_is_its_contract),
        ("tiles", checks::every_tile_has_the_same_bits),
        ("activations", checks::gemm_ends_with_its_activation),
        ("attention", checks::attention_is_its_contract),
        ("attention with scores of content", checks::content_attention_is_its_contract),
        ("grouped gemm", checks::grouped_gemm_is_its_contract),
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
    let all: [(&str, Check); 8] = [
        ("embeddings", encoders::embeddings_are_the_references),
        ("heads", encoders::heads_are_the_references),
        ("modern layers", encoders::modern_layers_are_the_references),
        ("quantised layers", encoders::quantised_layers_are_the_references),
        ("decoders", encoders::steps_are_the_references),
        ("decoders behind encoders", encoders::answers::are_the_references),
        ("published sizes", encoders::published_sizes_are_the_references),
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

/// Batches that are timed: sequences, and the tokens of the longest; whether the lengths of all are drawn from 1 up to it.
const BATCHES: [(usize, usize, bool); 5] =
    [(1, 16, false), (1, 128, false), (32, 256, false), (128, 128, false), (128, 128, true)];

/// What an H100 has to reach: the fastest of some rows takes at most that time.
struct Goal {
    rows: &'static [&'static str],
    most: Most,
}

enum Most {
    Microseconds(f32),
    /// The time of a row by that number.
    Of(&'static str, f32),
}

const GOALS: [Goal; 6] = [
    Goal { rows: &["MiniLM-L6 f16 1x16"], most: Most::Microseconds(120.0) },
    Goal { rows: &["MiniLM-L6 f16 1x128"], most: Most::Microseconds(180.0) },
    Goal { rows: &["BERT-base f16 1x128"], most: Most::Microseconds(340.0) },
    // 20,000 sequences a second.
    Goal { rows: &["BERT-base f16 128x128"], most: Most::Microseconds(6400.0) },
    Goal { rows: &["BERT-base f16 128x1-128"], most: Most::Of("BERT-base f16 128x128", 1.7) },
    Goal { rows: &["BERT-base int8 128x128", "BERT-base fp8 128x128"], most: Most::Of("BERT-base f16 128x128", 1.4) },
];

fn latency(pack: PathBuf) -> Result<(), Failure> {
    let device = open(&pack)?;
    let (usual, gpu) = (device.target().architecture, device.info().name.clone());
    let mut variants: Vec<(Architecture, bool)> = Vec::new();
    for architecture in architectures(&device) {
        variants.push((architecture, false));
        variants.extend(architecture.overlaps_kernels().then_some((architecture, true)));
    }
    drop(device);
    println!("kernels\tbegin\tmodel\tprecision\tshape\tGPU median us\tGPU p99 us\tcall median us");
    let mut medians = HashMap::new();
    for (name, sizes) in [("MiniLM-L6", MINILM), ("BERT-base", BERT_BASE)] {
        let (graph, _) = optimize(&encoders::embedding(sizes)?)?;
        let quantised = encoders::quantised(&graph, &Quantization::default())?;
        let mut plans = vec![("f16", lower(&graph, Format::F16)?), ("int8", lower(&quantised, Format::F16)?)];
        if usual.has_fp8() {
            plans.push(("fp8", lower_fp8(&graph, Format::F16)?));
        }
        for (precision, plan) in plans {
            for &(architecture, overlap) in &variants {
                let (device, capacity) = (open(&pack)?, Capacity { tokens: 16384, sequences: 256 });
                let device = if overlap { device } else { device.in_turn() };
                let target = Target { architecture, ..device.target() };
                let mut encoder = Session::new(device, plan.clone(), target, capacity, CacheRoom::default())?;
                let begin = if overlap { "early" } else { "in turn" };
                // What the program itself runs is what targets are for.
                let counts = architecture == usual && overlap == usual.overlaps_kernels();
                for (sequences, tokens, ragged) in BATCHES {
                    let shape = format!("{sequences}x{}{tokens}", if ragged { "1-" } else { "" });
                    let [median, p99, call] = times(&mut encoder, (sequences, tokens, ragged))?;
                    println!("{architecture}\t{begin}\t{name}\t{precision}\t{shape}\t{median:.1}\t{p99:.1}\t{call:.1}");
                    if counts {
                        medians.insert(format!("{name} {precision} {shape}"), median);
                    }
                }
            }
        }
    }
    judge(&medians, &gpu)
}

/// Microseconds of a batch: median and 99th percentile on the GPU, and the median of calls.
fn times(
    encoder: &mut Session<CudaDevice>,
    (sequences, tokens, ragged): (usize, usize, bool),
) -> Result<[f32; 3], Failure> {
    let mut random = Random::new(7);
    let length = |_| if ragged { 1 + random.below(tokens) } else { tokens };
    let input = Input::new(&(0..sequences).map(length).collect::<Vec<_>>(), 3)?;
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

/// Prints which targets medians by row meet. An error where a GPU that they are for misses one.
fn judge(medians: &HashMap<String, f32>, gpu: &str) -> Result<(), Failure> {
    println!("target on an H100\tmost us\tmedian us\tverdict");
    let of = |row: &str| medians.get(row).copied().ok_or_else(|| format!("`{row}` is not measured"));
    let mut missed = 0;
    for Goal { rows, most } in &GOALS {
        let (most, why) = match most {
            Most::Microseconds(most) => (*most, String::new()),
            Most::Of(row, times) => (of(row)? / times, format!(", {times} times as fast as {row}")),
        };
        // What a GPU doesn't have is not measured.
        let median = rows.iter().filter_map(|row| medians.get(*row)).copied().fold(f32::INFINITY, f32::min);
        let is_met = median <= most;
        missed += usize::from(!is_met);
        let verdict = if is_met { "met" } else { "missed" };
        println!("{}{why}\t{most:.1}\t{median:.1}\t{verdict}", rows.join(" or "));
    }
    match missed {
        0 => Ok(()),
        _ if gpu.contains("H100") => Err(format!("{missed} targets are missed").into()),
        _ => {
            println!("this is {gpu}, for which they are no targets");
            Ok(())
        }
    }
}
