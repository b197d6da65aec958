//! From a checkpoint's folder to outputs, as `--device cuda` goes, on a driver that is the emulator.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use centuple::generation::{Encoding, Logits, Parameters, Request, Scheduler, Source, Step, StepEngine, StepSpan};
use centuple::kernels::KvPrecision;
use centuple::tasks::{Engine, Output, Sequence};
use centuple::{CudaFiles, Device, Error, GenerationOptions, Host, HostOptions, LoadOptions, Precision};
use centuple_cuda::Architecture;
use centuple_testkit::{FamilyGolden, Golden, Random};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use crate::driver::Machine;
use crate::encoders::Failure;

pub(crate) const HIDDEN: usize = 128;
pub(crate) const INNER: usize = 256;
const POSITIONS: usize = 48;

pub(crate) fn host() -> Result<Host, Failure> {
    Ok(Host::new(&HostOptions { threads: Some(2), isa: None })?)
}

/// A sentence embedder of one layer, of a size that kernels are there for.
pub(crate) fn checkpoint() -> Result<TempDir, Failure> {
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

/// Random weights by name.
struct Weights {
    random: Random,
    tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Weights {
    fn new() -> Weights {
        Weights { random: Random::new(11), tensors: HashMap::new() }
    }

    fn put(&mut self, name: String, shape: Vec<usize>, scale: f32, offset: f32) {
        let count = shape.iter().product();
        let bytes = (0..count).flat_map(|_| (offset + scale * self.random.float()).to_le_bytes()).collect();
        self.tensors.insert(name, (shape, bytes));
    }

    fn save(&self, file: &Path) -> Result<(), Failure> {
        let views = self.tensors.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the bytes are the shape's");
            (name.as_str(), view)
        });
        Ok(safetensors::serialize_to_file(views, None, file)?)
    }
}

fn weights(file: &Path, vocabulary: usize) -> Result<(), Failure> {
    let mut weights = Weights::new();
    let mut put = |name: String, shape: Vec<usize>, scale: f32, offset: f32| weights.put(name, shape, scale, offset);
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
    weights.save(file)
}

pub(crate) fn sequences(vocabulary: usize) -> Vec<Sequence> {
    let mut random = Random::new(5);
    let of = |length: usize| Sequence {
        pool_from: length / 9,
        ..Sequence::from_ids((0..length).map(|_| random.below(vocabulary) as u32).collect())
    };
    [3, 17, 20, 9, 1, 46].map(of).to_vec()
}

pub(crate) fn cosine(a: &Output, b: &Output) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(&a.data, &b.data) / (dot(&a.data, &a.data) * dot(&b.data, &b.data)).sqrt()
}

#[test]
fn checkpoints_run_on_gpus() -> Result<(), Failure> {
    let (machine, folder) = (Machine::new(Architecture::OLDEST, false)?, checkpoint()?);
    let host = host()?;
    let cuda = machine.files();
    let on_cpu = LoadOptions { max_batch_tokens: 64, ..LoadOptions::default() };
    let on_gpu = LoadOptions { device: Device::Cuda(None), cuda, ..on_cpu.clone() };
    let load = |options: &LoadOptions| host.load_folder(folder.path(), "model", options);

    let mut reference = load(&on_cpu)?;
    let sequences = sequences(reference.engine.limits().vocabulary);
    let expected: Vec<Output> = sequences
        .iter()
        .map(|sequence| Ok(reference.engine.run(&[sequence])?.remove(0)))
        .collect::<Result<_, Failure>>()?;
    let newer = Machine::new(Architecture::BUILT[3], true)?;
    let on_newer = LoadOptions { cuda: newer.files(), ..on_gpu.clone() };
    for (precision, is, least, options) in [
        (None, Precision::F16, 0.99999, &on_gpu),
        (Some(Precision::Int8), Precision::Int8, 0.999, &on_gpu),
        (Some(Precision::Int4), Precision::Int4, 0.99, &on_gpu),
        (Some(Precision::Fp8), Precision::Fp8, 0.998, &on_newer),
    ] {
        let mut loaded = load(&LoadOptions { precision, ..options.clone() })?;
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

    // Artefacts, whose weights are stored as the CPU's kernels read them.
    let of_precision = |precision| LoadOptions { precision: Some(precision), ..on_cpu.clone() };
    for (precision, least) in [(Precision::F16, 0.99999), (Precision::Int8, 0.999), (Precision::Int4, 0.99)] {
        let parent = tempfile::tempdir()?;
        let artefact = parent.path().join("artefact");
        host.compile_folder(folder.path(), "model", &of_precision(precision))?.save(folder.path(), &artefact)?;
        let mut on_cpu = host.load_folder(&artefact, "model", &on_cpu)?.engine;
        let mut loaded = host.load_folder(&artefact, "model", &on_gpu)?;
        assert_eq!((loaded.precision, loaded.engine.gpus().len()), (precision, 1));
        for sequence in &sequences {
            let found = cosine(&loaded.engine.run(&[sequence])?[0], &on_cpu.run(&[sequence])?[0]);
            assert!(found > least, "an artefact in {precision}: cosine {found}");
        }
    }
    let parent = tempfile::tempdir()?;
    let artefact = parent.path().join("artefact");
    host.compile_folder(folder.path(), "model", &on_cpu)?.save(folder.path(), &artefact)?;
    assert!(matches!(host.load_folder(&artefact, "model", &on_gpu), Err(Error::OnlyCpu { .. })), "an artefact in f32");

    let fp8 = |options: &LoadOptions| load(&LoadOptions { precision: Some(Precision::Fp8), ..options.clone() });
    assert!(fp8(&on_gpu).err().is_some_and(|error| error.to_string().contains("8.9")));
    let cuda = CudaFiles { cublas: Some("/nonexistent/libcublasLt.so.13".into()), ..newer.files() };
    let error = fp8(&LoadOptions { cuda, ..on_gpu.clone() }).err().ok_or("there is no such library")?.to_string();
    assert!(error.contains("nvidia-cublas") && !error.contains('\n'), "{error}");
    let error = fp8(&on_cpu).err().ok_or("the CPU has no fp8")?.to_string();
    assert!(error.contains("--device cuda") && error.contains("8.9"), "{error}");
    let bf16 = |options: &LoadOptions| load(&LoadOptions { precision: Some(Precision::Bf16), ..options.clone() });
    for (options, needed) in [(&on_gpu, "8.0"), (&on_cpu, "8.0 or newer only; add --device cuda")] {
        let error = bf16(options).err().ok_or("neither has bf16")?.to_string();
        assert!(error.contains("bf16") && error.contains(needed), "{error}");
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

/// Each GPU has the whole model, and a batch is dealt out to all.
#[test]
fn several_gpus_share_batches() -> Result<(), Failure> {
    let (machine, folder, host) = (Machine::new(Architecture::OLDEST, false)?, checkpoint()?, host()?);
    let load = |device, cuda| {
        let options = LoadOptions { device, cuda, max_batch_tokens: 128, ..LoadOptions::default() };
        host.load_folder(folder.path(), "model", &options)
    };
    let mut single = load(Device::Cuda(None), machine.files())?.engine;
    let (sequences, weights) = (sequences(single.limits().vocabulary), single.memory().weights);
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let alone = single.run(&batch)?;
    drop(single);

    let machine = machine.with_gpus(2)?;
    let mut all = load(Device::Cuda(None), machine.files())?.engine;
    assert_eq!((all.gpus().len(), all.memory().weights), (2, 2 * weights));
    assert_eq!(all.run(&batch)?, alone);
    let gpus = all.gpus();
    assert!(gpus.iter().enumerate().all(|(index, gpu)| gpu.number == index && gpu.busy() > Duration::ZERO));
    let used = || gpus.iter().map(|gpu| gpu.busy()).collect::<Vec<_>>();
    let before = used();
    assert_eq!(all.run(&batch[..1])?, alone[..1]);
    assert_eq!(used().iter().zip(&before).filter(|(now, before)| now > before).count(), 1, "one is enough");

    let mut second = load(Device::Cuda(Some(1)), machine.files())?.engine;
    assert_eq!((second.gpus().len(), second.gpus()[0].number), (1, 1));
    assert_eq!(second.run(&batch)?, alone);
    let third = load(Device::Cuda(Some(2)), machine.files()).err().ok_or("there are two")?.to_string();
    assert!(third.contains("no CUDA device 2"), "{third}");
    Ok(())
}

/// A Llama of one layer, of a size that kernels are there for.
pub(crate) fn llama() -> Result<TempDir, Failure> {
    decoder("llama", &["model.embed_tokens", "lm_head"])
}

/// A decoder of one layer whose weights have Llama's names, and the tables among them.
fn decoder(name: &str, tables: &[&str]) -> Result<TempDir, Failure> {
    let folder = tempfile::tempdir()?;
    let families = FamilyGolden::all()?;
    let family = families.iter().find(|family| family.name == name).ok_or("the family is gone")?;
    let case = family.cases.iter().find(|case| case.name == "causal").ok_or("the case is gone")?;
    family.assemble(case, folder.path())?;
    let config = folder.path().join("config.json");
    change(
        &config,
        &[
            ("hidden_size", HIDDEN),
            ("num_attention_heads", 4),
            ("num_key_value_heads", 2),
            ("head_dim", 32),
            ("intermediate_size", INNER),
            ("num_hidden_layers", 1),
            ("max_position_embeddings", POSITIONS),
        ],
    )?;
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(config)?)?;
    let vocabulary = config["vocab_size"].as_u64().ok_or("no vocab_size")? as usize;
    let mut weights = Weights::new();
    for name in tables {
        weights.put(format!("{name}.weight"), vec![vocabulary, HIDDEN], 0.5, 0.0);
    }
    let linears = [
        ("self_attn.q_proj", HIDDEN, HIDDEN),
        ("self_attn.k_proj", HIDDEN / 2, HIDDEN),
        ("self_attn.v_proj", HIDDEN / 2, HIDDEN),
        ("self_attn.o_proj", HIDDEN, HIDDEN),
        ("mlp.gate_proj", INNER, HIDDEN),
        ("mlp.up_proj", INNER, HIDDEN),
        ("mlp.down_proj", HIDDEN, INNER),
    ];
    for (name, n, k) in linears {
        weights.put(format!("model.layers.0.{name}.weight"), vec![n, k], 2.0 / (k as f32).sqrt(), 0.0);
    }
    for name in ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"] {
        weights.put(format!("{name}.weight"), vec![HIDDEN], 0.3, 1.0);
    }
    weights.save(&folder.path().join("model.safetensors"))?;
    Ok(folder)
}

pub(crate) fn tokens(count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| 40 + random.below(80) as u32).collect()
}

/// Bytes for keys and values.
const KV_MEMORY: usize = 64 << 10;
/// The first page of a text that an encoder reads.
const TEXT_PAGE: u32 = 6;

/// The logits of the last token of a prompt that comes in parts, behind a text where the model answers one.
fn prompt(engine: &mut dyn StepEngine, text: Option<&[u32]>, ids: &[u32], cuts: &[usize]) -> Result<Vec<f32>, Failure> {
    let mut logits = Logits::default();
    let mut past = 0;
    let text = text.map(|ids| {
        let pages: Vec<u32> = (TEXT_PAGE..).take(ids.len().div_ceil(16)).collect();
        (Encoding { ids: ids.to_vec(), pages: pages.clone() }, Source { tokens: ids.len(), pages })
    });
    for &end in cuts.iter().chain([&ids.len()]) {
        let span = StepSpan {
            ids: ids[past..end].to_vec(),
            past,
            pages: (0..end.div_ceil(16) as u32).collect(),
            selected: if end == ids.len() { vec![(end - past) as u32 - 1] } else { vec![] },
            source: text.as_ref().map(|(_, source)| source.clone()),
        };
        let encodings = text.iter().filter(|_| past == 0).map(|(encoding, _)| encoding.clone()).collect();
        engine.run(&Step { encodings, spans: vec![span], ..Step::default() }, &mut logits)?;
        past = end;
    }
    Ok(logits.values)
}

type Answer = Vec<(u32, u32, Option<u32>)>;

/// What requests get that are run together: answer by answer each token with the bits of its log-probability.
fn answers(engine: &mut dyn StepEngine, requests: &[Request]) -> Result<Vec<Answer>, Failure> {
    let mut scheduler = Scheduler::new(engine.limits());
    let ids = requests.iter().map(|request| scheduler.submit(request.clone()));
    let ids = ids.collect::<Result<Vec<_>, _>>().map_err(|refusal| format!("{refusal:?}"))?;
    let (mut found, mut logits) = (vec![Answer::new(); requests.len()], Logits::default());
    while !scheduler.is_idle() {
        for update in scheduler.step(engine, &mut logits).ok_or("nothing to do")? {
            let place = ids.iter().position(|id| *id == update.request).ok_or("an unknown request")?;
            let tokens = update.tokens.iter();
            found[place].extend(tokens.map(|token| (update.sequence, token.token, token.logprob.map(f32::to_bits))));
        }
    }
    found.iter_mut().for_each(|answer| answer.sort_by_key(|token| token.0));
    Ok(found)
}

#[test]
fn decoders_run_on_gpus() -> Result<(), Failure> {
    for (architecture, fp8) in [(Architecture::BUILT[0], false), (Architecture::BUILT[5], true)] {
        let precisions = if fp8 {
            vec![(Some(Precision::Fp8), 0.99)]
        } else {
            vec![(None, 0.9999), (Some(Precision::Int8), 0.99), (Some(Precision::Int4), 0.98)]
        };
        decoder_runs(&Machine::new(architecture, fp8)?, &llama()?, None, &precisions)?;
    }
    Ok(())
}

/// Embeddings are multiplied by a number, and the head has their table.
#[test]
fn gemmas_run_on_gpus() -> Result<(), Failure> {
    let machine = Machine::new(Architecture::OLDEST, false)?;
    let gemma = decoder("gemma", &["model.embed_tokens"])?;
    decoder_runs(&machine, &gemma, None, &[(None, 0.9999)])?;
    decoder_runs(&Machine::bf16(Architecture::BUILT[1])?, &gemma, None, &[(Some(Precision::Bf16), 0.999)])
}

/// A model generates what it does on the CPU in f32, with logits at least that close in each precision, behind a text where it
/// answers one.
pub(crate) fn decoder_runs(
    machine: &Machine,
    folder: &TempDir,
    text: Option<&[u32]>,
    precisions: &[(Option<Precision>, f64)],
) -> Result<(), Failure> {
    let host = host()?;
    let cuda = machine.files();
    let on_gpu = LoadOptions { device: Device::Cuda(None), cuda, ..LoadOptions::default() };
    let name = folder.path().to_str().ok_or("a path of text")?;
    let options = GenerationOptions {
        kv_memory: Some(KV_MEMORY),
        tokens_per_step: 24,
        sequences_per_step: 4,
        ..GenerationOptions::default()
    };
    let ids = tokens(40, 1);
    let roomy = GenerationOptions { kv_memory: Some(1 << 20), ..options };
    let mut on_cpu = host.load_generating(name, &LoadOptions::default(), &roomy)?.engine;
    let expected = prompt(&mut on_cpu, text, &ids, &[20])?;
    for &(precision, least) in precisions {
        let load = LoadOptions { precision, ..on_gpu.clone() };
        let mut engine = host.load_generating(name, &load, &options)?.engine;
        let page = engine.cache_bytes() / engine.limits().pages;
        assert!(engine.memory().weights > 0 && engine.gpu().is_some());
        assert!(engine.cache_bytes() <= KV_MEMORY && engine.cache_bytes() + page > KV_MEMORY);
        let found = prompt(&mut engine, text, &ids, &[20])?;
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let cosine = cosine(&found, &expected);
        assert!(cosine > least, "{precision:?}: cosine {cosine}");
        assert_eq!(prompt(&mut engine, text, &ids, &[7, 23, 24])?, found, "{precision:?}: however it is cut");

        // Greedy, drawn, and beams whose pages are copied; together they get what each gets alone.
        let greedy = Parameters { max_new_tokens: Some(6), logprobs: true, ..Parameters::default() };
        let drawn = Parameters { do_sample: true, temperature: 1.5, ..greedy.clone() };
        let beams = Parameters { num_beams: 3, num_return_sequences: 2, ..greedy.clone() };
        let request = |(prompt, parameters): (Vec<u32>, _)| Request {
            source: text.map(|text| text[prompt.len() % 3..].to_vec()),
            prompt,
            parameters,
            seed: 9,
            client: None,
            decoder: None,
            constraint: None,
        };
        let requests = [(tokens(19, 2), greedy), (tokens(21, 3), drawn), (tokens(5, 4), beams)].map(request);
        let together = answers(&mut engine, &requests)?;
        for (request, together) in requests.iter().zip(&together) {
            let alone = answers(&mut engine, std::slice::from_ref(request))?.remove(0);
            assert!(!alone.is_empty());
            assert_eq!(&alone, together, "{precision:?}: {:?}", request.parameters);
        }
    }
    let on_gpu = LoadOptions { precision: precisions[0].0, ..on_gpu };
    let int8 = GenerationOptions { kv_precision: Some(KvPrecision::Int8), ..options };
    assert!(matches!(host.load_generating(name, &on_gpu, &int8), Err(Error::OnlyCpu { .. })));
    let none = GenerationOptions { kv_memory: Some(100), ..options };
    assert!(matches!(host.load_generating(name, &on_gpu, &none), Err(Error::CacheMemory { .. })));
    Ok(())
}
