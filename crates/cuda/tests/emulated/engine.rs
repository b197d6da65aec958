//! From a checkpoint's folder to outputs, as `--device cuda` goes, on a driver that is the emulator.

use std::collections::HashMap;
use std::path::Path;

use centuple::tasks::{Engine, Output, Sequence};
use centuple::{CudaFiles, Device, Error, Host, HostOptions, LoadOptions, Precision};
use centuple_testkit::{Golden, Random};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use crate::driver::Machine;
use crate::encoders::Failure;

const HIDDEN: usize = 128;
const INNER: usize = 256;
const POSITIONS: usize = 48;

/// A sentence embedder of one layer, of a size that kernels are there for.
fn checkpoint() -> Result<TempDir, Failure> {
    let folder = tempfile::tempdir()?;
    let golden = Golden::open()?;
    let case = golden.case("sentence-normalize").ok_or("the case is gone")?;
    case.assemble(folder.path())?;
    change(
        &folder.path().join("config.json"),
        &[
            ("hidden_size", HIDDEN),
            ("num_attention_heads", 4),
            ("intermediate_size", INNER),
            ("num_hidden_layers", 1),
            ("max_position_embeddings", POSITIONS),
        ],
    )?;
    change(&folder.path().join("1_Pooling/config.json"), &[("word_embedding_dimension", HIDDEN)])?;
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("config.json"))?)?;
    let vocabulary = config["vocab_size"].as_u64().ok_or("no vocab_size")? as usize;
    weights(&folder.path().join("model.safetensors"), vocabulary)?;
    Ok(folder)
}

fn change(file: &Path, numbers: &[(&str, usize)]) -> Result<(), Failure> {
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    for (name, number) in numbers {
        config[*name] = json!(number);
    }
    Ok(std::fs::write(file, config.to_string())?)
}

fn weights(file: &Path, vocabulary: usize) -> Result<(), Failure> {
    let mut random = Random::new(11);
    let mut tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    let mut put = |name: String, shape: Vec<usize>, scale: f32, offset: f32| {
        let count = shape.iter().product();
        let bytes = (0..count).flat_map(|_| (offset + scale * random.float()).to_le_bytes()).collect();
        tensors.insert(name, (shape, bytes));
    };
    for (name, rows) in
        [("word_embeddings", vocabulary), ("position_embeddings", POSITIONS), ("token_type_embeddings", 2)]
    {
        put(format!("embeddings.{name}.weight"), vec![rows, HIDDEN], 1.0, 0.0);
    }
    let layer = "encoder.layer.0";
    let linears = [
        ("attention.self.query", HIDDEN, HIDDEN),
        ("attention.self.key", HIDDEN, HIDDEN),
        ("attention.self.value", HIDDEN, HIDDEN),
        ("attention.output.dense", HIDDEN, HIDDEN),
        ("intermediate.dense", INNER, HIDDEN),
        ("output.dense", HIDDEN, INNER),
    ];
    for (name, n, k) in linears {
        put(format!("{layer}.{name}.weight"), vec![n, k], 2.0 / (k as f32).sqrt(), 0.0);
        put(format!("{layer}.{name}.bias"), vec![n], 0.3, 0.0);
    }
    let norms = ["embeddings".to_owned(), format!("{layer}.attention.output"), format!("{layer}.output")];
    for name in norms {
        put(format!("{name}.LayerNorm.weight"), vec![HIDDEN], 0.3, 1.0);
        put(format!("{name}.LayerNorm.bias"), vec![HIDDEN], 0.2, 0.0);
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the bytes are the shape's");
        (name.as_str(), view)
    });
    Ok(safetensors::serialize_to_file(views, None, file)?)
}

fn sequences(vocabulary: usize) -> Vec<Sequence> {
    let mut random = Random::new(5);
    let of = |length: usize| Sequence {
        pool_from: length / 9,
        ..Sequence::from_ids((0..length).map(|_| random.below(vocabulary) as u32).collect())
    };
    [3, 17, 20, 9, 1, 46].map(of).to_vec()
}

fn cosine(a: &Output, b: &Output) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(&a.data, &b.data) / (dot(&a.data, &a.data) * dot(&b.data, &b.data)).sqrt()
}

/// One test, since the machine takes a while to make.
#[test]
fn checkpoints_run_on_gpus() -> Result<(), Failure> {
    let (machine, folder) = (Machine::new()?, checkpoint()?);
    let host = Host::new(&HostOptions { threads: Some(2), isa: None })?;
    let cuda = CudaFiles { driver: Some(machine.library()), kernels: Some(machine.kernels()), cache: None };
    let on_cpu = LoadOptions { max_batch_tokens: 64, ..LoadOptions::default() };
    let on_gpu = LoadOptions { device: Device::Cuda(None), cuda, ..on_cpu.clone() };
    let load = |options: &LoadOptions| host.load_folder(folder.path(), "model", options);

    let mut reference = load(&on_cpu)?;
    let sequences = sequences(reference.engine.limits().vocabulary);
    let expected: Vec<Output> = sequences
        .iter()
        .map(|sequence| Ok(reference.engine.run(&[sequence])?.remove(0)))
        .collect::<Result<_, Failure>>()?;
    for (precision, is, least) in [(None, Precision::F16, 0.99999), (Some(Precision::Int8), Precision::Int8, 0.999)] {
        let mut loaded = load(&LoadOptions { precision, ..on_gpu.clone() })?;
        assert_eq!((loaded.precision, loaded.model.card.dtype.as_str()), (is, is.dtype()));
        let gpus = loaded.engine.gpus();
        assert_eq!((gpus.len(), gpus[0].number, gpus[0].name.as_str()), (1, 0, "Emulated GPU"));
        assert!(loaded.engine.memory().weights > 0 && gpus[0].memory()[0] > 0);
        assert!(gpus[0].busy().is_zero(), "nothing has run");
        let alone: Vec<Output> = sequences
            .iter()
            .map(|sequence| Ok(loaded.engine.run(&[sequence])?.remove(0)))
            .collect::<Result<_, Failure>>()?;
        let (small, large) = sequences.split_at(5);
        let mut together = loaded.engine.run(&small.iter().collect::<Vec<_>>())?;
        together.extend(loaded.engine.run(&[&large[0]])?);
        for ((alone, together), expected) in alone.iter().zip(&together).zip(&expected) {
            assert_eq!(alone, together, "{is}: company changes nothing");
            assert_eq!((alone.rows, alone.columns), (1, HIDDEN));
            let found = cosine(alone, expected);
            assert!(found > least, "{is}: cosine {found}");
        }
        assert!(!gpus[0].busy().is_zero());
        let too_many: Vec<&Sequence> = [&large[0]; 2].to_vec();
        assert!(loaded.engine.run(&too_many).is_err(), "more tokens than a batch has");
        assert_eq!(loaded.engine.run(&[&small[1]])?, alone[1..2], "and the next batch is answered");
    }

    let f32 = load(&LoadOptions { precision: Some(Precision::F32), ..on_gpu.clone() });
    assert!(matches!(f32, Err(Error::OnlyCpu { .. })));
    let second = load(&LoadOptions { device: Device::Cuda(Some(1)), ..on_gpu.clone() });
    assert!(second.err().is_some_and(|error| error.to_string().contains("no CUDA device 1")));
    let nowhere = CudaFiles { driver: Some("/nonexistent/libcuda.so.1".into()), ..CudaFiles::default() };
    let error = load(&LoadOptions { cuda: nowhere, ..on_gpu }).err().ok_or("there is no driver")?.to_string();
    assert!(error.contains("NVIDIA's driver") && !error.contains('\n'), "{error}");
    Ok(())
}
