//! Results are independent of company: bit-identical alone, in any batch, in any order, at any thread count.

use std::sync::OnceLock;

use centuple::kernels::Isa;
use centuple::tasks::{Engine, Output, Sequence};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision, Quantization};
use centuple_testkit::{Golden, Random};
use proptest::prelude::*;
use tempfile::TempDir;

/// Checkpoints with every kind of output: token features, a pooled embedding, logits.
const CASES: [&str; 3] = ["bert-tiny", "sentence-all", "classify"];

fn folder(case: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let golden = Golden::open().expect("fixtures");
    golden.case(case).expect("the case").assemble(folder.path()).expect("the fixtures are there");
    folder
}

/// Every precision; integers of 7 and 8 bits, and of 12.
fn precisions() -> [(&'static str, LoadOptions); 4] {
    let of = |precision| LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let twelve = Quantization { bits: 12, activated_bits: 12, ..Quantization::default() };
    [
        ("f32", of(Precision::F32)),
        ("f16", of(Precision::F16)),
        ("int8", of(Precision::Int8)),
        ("int8 with 12 bits", LoadOptions { quantization: twelve, ..of(Precision::Int8) }),
    ]
}

fn load(case: &str, options: &LoadOptions, isa: Isa, threads: usize) -> Loaded {
    let folder = folder(case);
    let host = Host::new(&HostOptions { threads: Some(threads), isa: Some(isa) }).expect("threads start");
    host.load_folder(folder.path(), case, options).expect("the case loads")
}

fn sequences(lengths: &[usize], vocabulary: usize, seed: u64) -> Vec<Sequence> {
    let mut random = Random::new(seed);
    let of = |&length: &usize| {
        let ids = (0..length).map(|_| random.below(vocabulary) as u32).collect();
        Sequence {
            type_ids: (0..length).map(|token| u32::from(token > length / 2)).collect(),
            ids,
            pool_from: length / 5,
            selected: Vec::new(),
        }
    };
    lengths.iter().map(of).collect()
}

fn alone(loaded: &mut Loaded, sequences: &[Sequence]) -> Vec<Output> {
    sequences.iter().map(|sequence| loaded.engine.run(&[sequence]).expect("runs").remove(0)).collect()
}

/// Bits, so that equal means equal.
fn bits(output: &Output) -> Vec<u32> {
    output.data.iter().map(|value| value.to_bits()).collect()
}

type Loads = Vec<(String, Vec<std::sync::Mutex<Loaded>>)>;

/// Every case in every precision on every instruction set, with 1, 2 and 3 threads.
fn loads() -> &'static Loads {
    static LOADS: OnceLock<Loads> = OnceLock::new();
    LOADS.get_or_init(|| {
        let mut loads = Loads::new();
        for (isa, case) in Isa::available().flat_map(|isa| CASES.map(|case| (isa, case))) {
            for (precision, options) in precisions() {
                let of = |threads| std::sync::Mutex::new(load(case, &options, isa, threads));
                loads.push((format!("{case} in {precision} on {isa}"), [1, 2, 3].map(of).into()));
            }
        }
        loads
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_sequence_never_sees_its_batch_mates(
        lengths in prop::collection::vec(1usize..=64, 1..14),
        order in any::<u64>(),
        seed in any::<u64>(),
    ) {
        for (place, by_threads) in loads() {
            let vocabulary = by_threads[0].lock().expect("lock").engine.limits().vocabulary;
            let sequences = sequences(&lengths, vocabulary, seed);
            let expected: Vec<Vec<u32>> =
                alone(&mut by_threads[0].lock().expect("lock"), &sequences).iter().map(bits).collect();
            let mut random = Random::new(order);
            let mut shuffled: Vec<usize> = (0..sequences.len()).collect();
            for index in (1..shuffled.len()).rev() {
                shuffled.swap(index, random.below(index + 1));
            }
            for (threads, loaded) in by_threads.iter().enumerate() {
                let batch: Vec<&Sequence> = shuffled.iter().map(|&index| &sequences[index]).collect();
                let outputs = loaded.lock().expect("lock").engine.run(&batch).expect("runs");
                for (output, &index) in outputs.iter().zip(&shuffled) {
                    prop_assert!(bits(output) == expected[index], "{}, {} threads, sequence {}", place, threads + 1, index);
                }
            }
        }
    }
}
