//! Every op case on every executor: reference, plain plan, optimised plan, each instruction set, several thread counts.

use std::ops::Range;
use std::sync::Arc;

use centuple_graph::{Document, Graph, Op};
use centuple_kernels::{Isa, ThreadPool};
use centuple_reference::{Batch as ReferenceBatch, Cache, evaluate};
use centuple_runtime::{Batch, InputData, KvCache, KvPrecision, Plan, Session, lower, lower_stored, restore};
use centuple_tensor::{Bindings, DType, Layout, Symbol, Tensor};
use centuple_testkit::{Case, Step, cases, distance};

/// Outputs of every step.
type Outputs = Vec<Vec<f32>>;

fn by_reference(case: &Case) -> Outputs {
    let mut cache = Cache::new(1, case.cache_pages);
    let step = |step: &centuple_testkit::Step| {
        let mut batch = ReferenceBatch { bindings: step.bindings, layout: &step.layout, cache: &mut cache };
        let outputs = evaluate(&case.graph, &step.inputs, &mut batch).expect("the reference evaluates every case");
        outputs[0].as_f32().expect("outputs are f32").to_vec()
    };
    case.steps.iter().map(step).collect()
}

fn by_plan(case: &Case, graph: &Graph, isa: Isa, threads: usize) -> Outputs {
    let plan = lower(graph, isa).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    run(case, Arc::new(plan), threads)
}

fn run(case: &Case, plan: Arc<Plan>, threads: usize) -> Outputs {
    let pool = Arc::new(ThreadPool::new(threads).expect("threads start"));
    let cache = KvCache::new(plan.cache_slots(), KvPrecision::F32, case.cache_pages).expect("memory");
    let capacity = Bindings { tokens: 200, sequences: 8, batch: 4, sequence: 150, past: 0, selected: 64 };
    let mut session = Session::new(plan, pool, capacity).expect("the session fits");
    let mut outputs = Outputs::new();
    for step in &case.steps {
        let data = |tensor: &'_ centuple_tensor::Tensor| match tensor.dtype() {
            DType::I64 => Ok(tensor.as_i64().expect("i64").to_vec()),
            DType::F32 | DType::F16 | DType::BF16 | DType::I8 => Err(tensor.as_f32().expect("f32").to_vec()),
        };
        let owned: Vec<_> = step.inputs.iter().map(|(name, tensor)| (*name, data(tensor))).collect();
        let inputs: Vec<(&str, InputData)> = owned
            .iter()
            .map(|(name, data)| match data {
                Ok(ids) => (*name, InputData::I64(ids)),
                Err(floats) => (*name, InputData::F32(floats)),
            })
            .collect();
        let batch = Batch { inputs: &inputs, layout: &step.layout, bindings: step.bindings, cache: Some(&cache) };
        session.run(&batch).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let rows = session.output(0).expect("one output");
        outputs.push((0..rows.rows()).flat_map(|row| rows.row(row).to_vec()).collect());
    }
    outputs
}

fn all_cases() -> Vec<Case> {
    cases().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn every_plan_computes_what_the_reference_computes() {
    for case in all_cases() {
        let expected = by_reference(&case);
        let (optimised, _) = centuple_passes::optimize(&case.graph).expect("passes keep graphs valid");
        for graph in [&case.graph, &optimised] {
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let found = by_plan(&case, graph, isa, threads);
                    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let distance = distance(found, expected);
                        let place = format!("{} on {isa} with {threads} threads, step {step}", case.name);
                        assert!(distance <= case.tolerance, "{place}: off by {distance:e}\n{graph}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for case in all_cases() {
        let one = by_plan(&case, &case.graph, Isa::best(), 1);
        for threads in [2, 3, 5] {
            assert!(one == by_plan(&case, &case.graph, Isa::best(), threads), "{} with {threads} threads", case.name);
        }
    }
}

#[test]
fn stored_plans_change_no_bit() {
    for case in all_cases() {
        let (graph, _) = centuple_passes::optimize(&case.graph).expect("passes keep graphs valid");
        let plan = lower(&graph, Isa::best()).expect("lowers");
        let mut file = Vec::new();
        plan.write_weights(&mut file).expect("memory can be written");
        safetensors::SafeTensors::deserialize(&file).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let text = serde_json::to_string(&graph.document()).expect("documents are JSON");
        let document: Document = serde_json::from_str(&text).expect("documents are JSON");
        let read = document.graph().unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let stored = lower_stored(&read, Isa::best(), &mut file.as_slice());
        let stored = stored.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(run(&case, Arc::new(plan), 2) == run(&case, Arc::new(stored), 2), "{}", case.name);
        assert!(lower(&read, Isa::best()).is_err() || file.len() < 64 + 64, "{}: nothing was to be packed", case.name);

        let (again, restored) = restore(&read, Isa::best(), &mut file.as_slice()).expect("it was just read");
        let mut same = Vec::new();
        again.write_weights(&mut same).expect("memory can be written");
        assert!(same == file, "{}", case.name);
        let plan_of_restored = lower(&restored, Isa::best()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        same.clear();
        plan_of_restored.write_weights(&mut same).expect("memory can be written");
        assert!(same == file, "{}: the constants are those that were stored", case.name);

        let longer = [file.as_slice(), &[0]].concat();
        let mut renamed = file.clone();
        renamed[10] ^= 1;
        for (what, file) in
            [("short", &file[..file.len() - 1]), ("long", &longer), ("renamed", &renamed), ("none", &[])]
        {
            let error = lower_stored(&read, Isa::best(), &mut &*file).map(drop).expect_err(what).to_string();
            assert!(error.contains("file of weights"), "{}, {what}: {error}", case.name);
        }
    }
}

/// The rows of a sequence are the same alone as in its batch.
#[test]
fn company_changes_no_bit() {
    for case in all_cases().into_iter().filter(|case| case.cache_pages == 0) {
        let (graph, _) = centuple_passes::optimize(&case.graph).expect("passes keep graphs valid");
        let plan = Arc::new(lower(&graph, Isa::best()).expect("lowers"));
        let together = run(&case, Arc::clone(&plan), 2);
        for (step, together) in case.steps.iter().zip(together) {
            let mut alone = Vec::new();
            for span in step.layout.spans() {
                let rows = span.start..span.start + span.tokens;
                let inputs = step.inputs.iter().map(|(name, tensor)| (*name, rows_of(tensor, rows.clone()))).collect();
                let layout = Layout::new(vec![span.clone()]).expect("layout");
                let step = Step { inputs, bindings: layout.bindings(), layout };
                let case =
                    Case { name: case.name.clone(), graph: graph.clone(), steps: vec![step], ..case_of_nothing() };
                alone.extend(run(&case, Arc::clone(&plan), 2).remove(0));
            }
            assert!(step.layout.spans().is_empty() || alone == together, "{}", case.name);
        }
    }
}

fn case_of_nothing() -> Case {
    Case { name: String::new(), graph: Graph::new(), steps: Vec::new(), cache_pages: 0, tolerance: 0.0 }
}

/// Some rows of a packed tensor.
fn rows_of(tensor: &Tensor, rows: Range<usize>) -> Tensor {
    let width = tensor.len() / tensor.shape()[0];
    let shape = [&[rows.len()], &tensor.shape()[1..]].concat();
    let part = rows.start * width..rows.end * width;
    let part = match tensor.dtype() {
        DType::I64 => Tensor::from_i64(&shape, &tensor.as_i64().expect("i64")[part]),
        DType::F32 | DType::F16 | DType::BF16 | DType::I8 => {
            Tensor::from_f32(&shape, &tensor.as_f32().expect("f32")[part])
        }
    };
    part.expect("the rows exist")
}

/// How a prompt is cut into steps, and which pages it lies in, changes no bit of its last rows.
#[test]
fn chunking_and_pages_change_no_bit() {
    let cached: Vec<Case> = all_cases().into_iter().filter(|case| case.cache_pages > 0).collect();
    assert!(cached.len() > 1, "cases with a cache");
    for case in cached {
        for precision in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8] {
            let whole = in_chunks(&case, precision, &[40], &[0, 1, 2]);
            let name = &case.name;
            assert!(whole == in_chunks(&case, precision, &[1, 15, 17, 7], &[0, 1, 2]), "{name} {precision:?}");
            assert!(whole == in_chunks(&case, precision, &[39, 1], &[7, 3, 5]), "{name} {precision:?}");
            assert!(whole == in_chunks(&case, precision, &[1; 40], &[6, 1, 0]), "{name} {precision:?}");
        }
    }
}

/// The rows of a prompt of 40 tokens that is cut into steps.
fn in_chunks(case: &Case, precision: KvPrecision, chunks: &[usize], pages: &[u32]) -> Vec<f32> {
    let width = 16;
    let x: Vec<f32> =
        centuple_testkit::Random::new(5).tensor(&[40, width], 2.0).expect("tensor").as_f32().expect("f32").to_vec();
    let plan = Arc::new(lower(&case.graph, Isa::best()).expect("lowers"));
    let pool = Arc::new(ThreadPool::new(2).expect("threads start"));
    let cache = KvCache::new(plan.cache_slots(), precision, 8).expect("memory");
    let capacity = Bindings { tokens: 64, sequences: 4, ..Bindings::default() };
    let mut session = Session::new(Arc::clone(&plan), pool, capacity).expect("the session fits");
    let (mut past, mut out) = (0, Vec::new());
    for &tokens in chunks {
        let span = centuple_tensor::Span { tokens, past, pages: pages.to_vec(), ..Default::default() };
        let layout = centuple_tensor::Layout::new(vec![span]).expect("layout");
        let inputs = [("x", InputData::F32(&x[past * width..(past + tokens) * width]))];
        let batch = Batch { inputs: &inputs, layout: &layout, bindings: layout.bindings(), cache: Some(&cache) };
        session.run(&batch).expect("runs");
        let rows = session.output(0).expect("one output");
        out.extend((0..rows.rows()).flat_map(|row| rows.row(row).to_vec()));
        past += tokens;
    }
    out
}

/// Whatever else the same codes were packed for before.
#[test]
fn codes_are_proved_for_the_bits_of_every_reader() {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 8.into()]).expect("an input");
    let mut constant =
        |name: &str, tensor: Result<Tensor, _>| graph.constant(name, tensor.expect("a tensor")).expect("a constant");
    let codes = constant("codes", Tensor::from_i8(&[1, 8], &[127; 8]));
    let scales = constant("scales", Tensor::from_f32(&[1], &[1.0]));
    let factor = constant("factor", Tensor::from_f32(&[8], &[1.0; 8]));
    let mut lowered = |bits| {
        let op = Op::QuantizedLinear { bits, range: None, bias: false, activation: None, residual: false };
        let out = graph.push("layer", op, &[x, codes, scales, factor]).expect("the shapes fit");
        graph.output(&format!("of {bits} bits"), out);
        lower(&graph, Isa::best())
    };
    lowered(12).expect("no code is too large for 12 bits");
    let error = lowered(7).expect_err("these are too large for 7 bits").to_string();
    assert!(error.contains("7-bit activations"), "{error}");
}

#[test]
fn wrong_batches_are_errors() {
    let case = all_cases().into_iter().find(|case| case.name == "embedding").expect("the embedding case");
    let plan = Arc::new(lower(&case.graph, Isa::best()).expect("lowers"));
    let pool = Arc::new(ThreadPool::new(2).expect("threads start"));
    let mut session =
        Session::new(plan, pool, Bindings { tokens: 8, sequences: 8, ..Bindings::default() }).expect("fits");
    let layout = centuple_tensor::Layout::of_lengths(&[3]).expect("layout");
    let mut run = |name: &str, data: InputData, layout: &centuple_tensor::Layout| {
        let inputs = [(name, data)];
        let batch = Batch { inputs: &inputs, layout, bindings: layout.bindings(), cache: None };
        session.run(&batch).map_err(|error| error.to_string())
    };
    assert_eq!(run("ids", InputData::I64(&[1, 2, 3]), &layout), Ok(()));
    for ids in [[1, 2, 50], [-1, 2, 3], [i64::MAX, 0, 0]] {
        let error = run("ids", InputData::I64(&ids), &layout).expect_err("an id outside of the table");
        assert!(error.contains("embedding"), "{error}");
    }
    assert!(run("ids", InputData::I64(&[1]), &layout).is_err());
    assert!(run("ids", InputData::F32(&[1.0; 3]), &layout).is_err());
    assert!(run("other", InputData::I64(&[1, 2, 3]), &layout).is_err());
    let long = centuple_tensor::Layout::of_lengths(&[9]).expect("layout");
    assert!(run("ids", InputData::I64(&[0; 9]), &long).is_err());
    assert_eq!(run("ids", InputData::I64(&[1, 2, 3]), &layout), Ok(()));
}
