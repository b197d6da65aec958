//! The JSON files of a model folder: they are refused, or they make a model that compiles and computes what the
//! reference evaluator computes.
//!
//! The input is one file after the other, a line each, in the order of [`FILES`]; an empty line is no file. Weights
//! are made to fit `config.json` as long as they are small, so that strange sizes reach the kernels.

#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use centuple_fuzz::{Folder, fitting_weights};
use centuple_graph::{Graph, NodeId};
use centuple_kernels::{Isa, ThreadPool};
use centuple_models::{Model, Purpose};
use centuple_passes::{Channels, Observations, Quantization, halve_weights, observed_values, quantize};
use centuple_reference::{self as reference, Cache};
use centuple_runtime::{Batch, InputData, Session, lower};
use centuple_tensor::{Dim, Layout, Tensor};
use centuple_testkit::distance;
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 6] = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];
/// Lengths of the sequences of a batch; some models are too short for it.
const LENGTHS: [usize; 3] = [1, 5, 2];
/// Largest accepted distance to the reference evaluator.
const TOLERANCE: f32 = 1e-3;

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(folder());
}

fn folder() -> Folder {
    let folder = Folder::of_case("sentence-dense");
    FILES.into_iter().for_each(|file| folder.put(file, None));
    folder
}

fn pool() -> Arc<ThreadPool> {
    static POOL: OnceLock<Arc<ThreadPool>> = OnceLock::new();
    Arc::clone(POOL.get_or_init(|| Arc::new(ThreadPool::new(2).expect("threads start"))))
}

fuzz_target!(|data: &[u8]| {
    FOLDER.with_borrow(|folder| {
        let mut contents = data.split(|&byte| byte == b'\n');
        for file in FILES {
            folder.put(file, contents.next().filter(|content| !content.is_empty()));
        }
        let config = data.split(|&byte| byte == b'\n').next().and_then(|config| serde_json::from_slice(config).ok());
        folder.put("model.safetensors", config.as_ref().and_then(fitting_weights).as_deref());
        for purpose in [Purpose::Own, Purpose::TokenFeatures] {
            if let Ok(model) = centuple_models::load(folder.path(), purpose) {
                compare(&model);
            }
        }
    });
});

/// Holds the plan in each precision against the reference evaluator.
fn compare(model: &Model) {
    let (graph, _) = centuple_passes::optimize(&model.graph).expect("passes take what models make");
    compare_graphs(&model.graph, &graph);
    let observed = |&value: &NodeId| {
        let width = graph.node(value).fact.shape.last().and_then(Dim::constant).expect("channels are fixed");
        (value, Channels { largest: vec![1.0; width], mean: vec![0.1; width] })
    };
    let observations: Observations = observed_values(&graph).iter().map(observed).collect();
    let twelve = Quantization { bits: 12, activated_bits: 12, ..Quantization::default() };
    for quantization in [Quantization::default(), twelve] {
        let (quantised, _) = quantize(&graph, &observations, &quantization).expect("any graph is quantised");
        compare_graphs(&quantised, &quantised);
    }
    let (halved, _) = halve_weights(&graph).expect("any graph is halved");
    compare_graphs(&halved, &halved);
}

/// Holds the plan of `graph` against what the reference evaluator makes of `plain`.
fn compare_graphs(plain: &Graph, graph: &Graph) {
    let layout = Layout::of_lengths(&LENGTHS).expect("no sequence is empty");
    let bindings = layout.bindings();
    let ids: Vec<i64> = (0..bindings.tokens).map(|token| token as i64 * 3).collect();
    let types: Vec<i64> = (0..bindings.tokens).map(|token| token as i64 % 2).collect();
    let tensor = |values: &[i64]| Tensor::from_i64(&[values.len()], values).expect("a small tensor");
    let inputs = [("input_ids", tensor(&ids)), ("token_type_ids", tensor(&types))];
    let mut cache = Cache::default();
    let mut batch = reference::Batch { bindings, layout: &layout, cache: &mut cache };
    let expected = reference::evaluate(plain, &inputs, &mut batch);
    let inputs = [("input_ids", InputData::I64(&ids)), ("token_type_ids", InputData::I64(&types))];
    for isa in [Isa::Portable, Isa::best()] {
        let plan = Arc::new(lower(graph, isa).expect("what passes make can be lowered"));
        let mut session = Session::new(plan, pool(), bindings).expect("a small session");
        let outcome = session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: None });
        // Ids outside of a table are refused by both.
        assert_eq!(outcome.is_ok(), expected.is_ok(), "{outcome:?} {expected:?}");
        let (Ok(()), Ok(expected)) = (outcome, &expected) else { continue };
        let rows = session.output(0).expect("an output");
        let found: Vec<f32> = (0..rows.rows()).flat_map(|row| rows.row(row)).copied().collect();
        let expected = expected[0].as_f32().expect("outputs are f32");
        let distance = distance(&found, expected);
        assert!(distance <= TOLERANCE, "{isa}: off by {distance:e}: {found:?} instead of {expected:?}");
    }
}
