//! Every kernel that a plan can ask for compiles for every architecture, keeps everything in registers, and uses the
//! tensor cores.

mod toolkit;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use centuple_cuda::{Architecture, CubinCache, Format, Kernel, KernelStore, Nvrtc, Specialisation, Tile};
use object::{Object, ObjectSection};
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

/// What is wrong with a compiled kernel by the assembler's report, and its instructions.
fn compiled(nvrtc: &Nvrtc, kernel: Kernel) -> (Vec<String>, Vec<u8>) {
    let compiled = match nvrtc.compile(kernel) {
        Ok(compiled) => compiled,
        Err(error) => return (vec![error.to_string()], Vec::new()),
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
    let object = object::File::parse(&*compiled.cubin).expect("NVRTC makes an ELF file");
    let code = object.section_by_name(&format!(".text.{}", kernel.name())).expect("it has the kernel's code");
    (faults, code.data().expect("the section is in the file").to_vec())
}

/// What is wrong with instructions as the disassembler writes them.
fn misses(kernel: Kernel, assembly: &str) -> Vec<String> {
    let missing = expected(kernel).into_iter().filter(|opcode| !assembly.contains(opcode.as_str()));
    let early = assembly.split_once(WAIT).map_or("", |(early, _)| early);
    let touches = ["LDG.", "STG.", "RED.", "ATOM"].into_iter().filter(|opcode| early.contains(opcode));
    let missing = missing.map(|opcode| format!("no {opcode}among its instructions"));
    missing.chain(touches.map(|opcode| format!("{opcode} before it waits for the kernel before"))).collect()
}

/// Bytes of an instruction.
const INSTRUCTION: usize = 16;

/// The instructions of each piece of code, a line each. All are disassembled as one: most of the time goes into the start.
fn disassembled(architecture: Architecture, codes: &[&[u8]]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("code");
    std::fs::write(&file, codes.concat()).expect("the temporary folder can be written");
    let name = architecture.to_string().replace("sm_", "SM");
    let output =
        Command::new(&toolkit().nvdisasm).args(["--binary", &name]).arg(&file).output().expect("nvdisasm runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("/*")).collect();
    let bytes: usize = codes.iter().map(|code| code.len()).sum();
    assert!(output.status.success() && lines.len() == bytes / INSTRUCTION, "nvdisasm writes a line per instruction");
    let mut lines = lines.into_iter();
    codes.iter().map(|code| lines.by_ref().take(code.len() / INSTRUCTION).collect::<Vec<_>>().join("\n")).collect()
}

/// Checks all kernels of an architecture on two threads.
fn check(architecture: Architecture) {
    let nvrtc = Nvrtc::load(Some(&toolkit().nvrtc)).unwrap_or_else(|error| panic!("{error}"));
    let (kernels, next) = (Kernel::all(architecture), AtomicUsize::new(0));
    let compile = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let kernels = numbers.map_while(|number| kernels.get(number));
        kernels.map(|&kernel| (kernel, compiled(&nvrtc, kernel))).collect::<Vec<_>>()
    };
    let all = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(compile));
        threads.map(|thread| thread.join().expect("no thread panics")).concat()
    });
    let mut found = Vec::new();
    // No more at a time than some megabytes of text.
    for some in all.chunks(32) {
        let codes: Vec<&[u8]> = some.iter().map(|(_, (_, code))| code.as_slice()).collect();
        for ((kernel, (faults, _)), assembly) in some.iter().zip(disassembled(architecture, &codes)) {
            let faults = faults.iter().cloned().chain(misses(*kernel, &assembly));
            found.extend(faults.map(|fault| format!("{} for {architecture}: {fault}", kernel.name())));
        }
    }
    assert!(found.is_empty() && all.len() == kernels.len(), "of {} kernels:\n{}", kernels.len(), found.join("\n"));
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
