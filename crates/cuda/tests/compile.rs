//! Every kernel that a plan can ask for compiles for every architecture, keeps everything in registers, and uses the
//! tensor cores.

mod toolkit;

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use centuple_cuda::{Architecture, CubinCache, Format, Kernel, KernelStore, Nvrtc, Specialisation, Tile};
use toolkit::toolkit;

/// What has to be among a kernel's instructions.
fn expected(kernel: Kernel) -> Vec<String> {
    let mut expected = products(kernel);
    if kernel.architecture.overlaps_kernels() {
        // What lets the next kernel start, and what waits for the one before.
        expected.extend(["PREEXIT ", WAIT].map(str::to_owned));
    }
    expected
}

/// The wait for the kernel before.
const WAIT: &str = "ACQBULK ";

/// What multiplies matrices, and brings them.
fn products(kernel: Kernel) -> Vec<String> {
    let ampere = kernel.architecture.is_ampere();
    let product = match (kernel.format, ampere) {
        (Format::F16, false) => "HMMA.1688.F32 ",
        (Format::F16, true) => "HMMA.16816.F32 ",
        (Format::Bf16, _) => "HMMA.16816.F32.BF16 ",
    };
    let mut expected = match kernel.specialisation {
        Specialisation::Gemm { tile, .. } | Specialisation::GroupedGemm { tile }
            if kernel.architecture.has_warpgroups() =>
        {
            let columns = Tile::all(kernel.architecture)[tile].columns;
            let codes = matches!(kernel.specialisation, Specialisation::Gemm { codes: true, .. });
            let product = match (codes, kernel.format) {
                (true, _) => format!("IGMMA.64x{columns}x32.U8.S8 "),
                (false, Format::F16) => format!("HGMMA.64x{columns}x16.F32 "),
                (false, Format::Bf16) => format!("HGMMA.64x{columns}x16.F32.BF16 "),
            };
            // The wait that leaves a step's products under way, and the fence behind its copies.
            let others = ["WARPGROUP.DEPBAR.LE gsb0, 0x1 ", "FENCE.VIEW.ASYNC", "LDGSTS.E.BYPASS.128"];
            return [product].into_iter().chain(others.map(str::to_owned)).collect();
        }
        Specialisation::Gemm { codes: false, .. } | Specialisation::GroupedGemm { .. } => {
            vec![product, "LDSM.16.M88.4 "]
        }
        Specialisation::Gemm { codes: true, .. } if ampere => vec!["IMMA.16832.U8.S8 ", "LDSM.16.M88.4 "],
        Specialisation::Gemm { codes: true, .. } => vec!["IMMA.8816.U8.S8 ", "LDSM.16.M88.4 "],
        Specialisation::Attention { .. } => vec![product, "LDSM.16.M88.4 ", "LDSM.16.MT88.4 ", "MUFU.EX2 "],
        Specialisation::Norm { .. }
        | Specialisation::Quantise { .. }
        | Specialisation::Epilogue { .. }
        | Specialisation::Dense
        | Specialisation::Append
        | Specialisation::Pool(_)
        | Specialisation::Widen
        | Specialisation::WideNorm
        | Specialisation::HeadNorm
        | Specialisation::Gate
        | Specialisation::Rotary { .. }
        | Specialisation::Select => Vec::new(),
    };
    if ampere && !expected.is_empty() {
        expected.push("LDGSTS.E.BYPASS.128");
    }
    if kernel.name().contains("e4m31") {
        expected.push("F2FP.SATFINITE.E4M3.F32");
    }
    expected.into_iter().map(str::to_owned).collect()
}

/// The numbers before a phrase of the assembler's report.
fn reported(log: &str, phrase: &str) -> Vec<u32> {
    log.match_indices(phrase).filter_map(|(place, _)| log[..place].split_whitespace().last()?.parse().ok()).collect()
}

/// What is wrong with a compiled kernel.
fn faults(nvrtc: &Nvrtc, kernel: Kernel, folder: &Path) -> Vec<String> {
    let compiled = match nvrtc.compile(kernel) {
        Ok(compiled) => compiled,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    for phrase in [" bytes stack frame", " bytes spill stores", " bytes spill loads"] {
        let numbers = reported(&compiled.log, phrase);
        if numbers.is_empty() || numbers.iter().any(|&bytes| bytes > 0) {
            faults.push(format!("{numbers:?}{phrase}"));
        }
    }
    // What the assembler only advises of has a number: products that it makes wait for each other, for one.
    if ["warning", "(C7"].iter().any(|word| compiled.log.contains(word)) {
        faults.push(compiled.log.clone());
    }
    let expected = expected(kernel);
    if !expected.is_empty() {
        let file = folder.join(format!("{}_{}.cubin", kernel.name(), kernel.architecture));
        std::fs::write(&file, &compiled.cubin).expect("the temporary folder can be written");
        let output = Command::new(&toolkit().nvdisasm).arg("-c").arg(&file).output().expect("nvdisasm runs");
        let assembly = String::from_utf8_lossy(&output.stdout);
        let missing = expected.into_iter().filter(|opcode| !assembly.contains(opcode.as_str()));
        faults.extend(missing.map(|opcode| format!("no {opcode}among its instructions")));
        let early = assembly.split_once(WAIT).map_or("", |(early, _)| early);
        let touches = ["LDG.", "STG.", "RED.", "ATOM"].into_iter().filter(|opcode| early.contains(opcode));
        faults.extend(touches.map(|opcode| format!("{opcode} before it waits for the kernel before")));
    }
    faults.iter().map(|fault| format!("{} for {}: {fault}", kernel.name(), kernel.architecture)).collect()
}

/// Checks all kernels of an architecture on two threads.
fn check(architecture: Architecture) {
    let nvrtc = Nvrtc::load(Some(&toolkit().nvrtc)).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kernels = Kernel::all(architecture);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let faults = faults(&nvrtc, kernel, folder.path());
                    found.lock().expect("no thread panics").extend(faults);
                }
            });
        }
    });
    let found = found.into_inner().expect("no thread panics");
    assert!(found.is_empty(), "of {} kernels:\n{}", kernels.len(), found.join("\n"));
}

#[test]
fn kernels_compile_for_turing() {
    check(Architecture::BUILT[0]);
}

#[test]
fn kernels_compile_for_ampere() {
    check(Architecture::BUILT[1]);
    check(Architecture::BUILT[2]);
}

#[test]
fn kernels_compile_for_ada() {
    check(Architecture::BUILT[3]);
}

#[test]
fn kernels_compile_for_hopper() {
    check(Architecture::BUILT[4]);
    check(Architecture::BUILT[5]);
}

#[test]
fn store_keeps_what_the_compiler_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = CubinCache::new(folder.path());
    let store = || KernelStore::new().with_cache(cache.clone()).with_compiler(toolkit().nvrtc.clone());
    let kernel = Kernel::new(Specialisation::Widen, Format::F16, Architecture::BUILT[4]).expect("a kernel");
    let compiled = store().cubin(kernel).unwrap_or_else(|error| panic!("{error}"));
    assert!(compiled.starts_with(b"\x7fELF"), "a binary");
    let version = Nvrtc::load(Some(&toolkit().nvrtc)).expect("it was just loaded").version();
    assert_eq!(cache.get(kernel, version).as_ref(), Some(&compiled));
    assert_eq!(store().cubin(kernel).expect("it is in the cache"), compiled);
}
