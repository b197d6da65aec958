//! What is done with a model beside running it, on a driver that is the emulator: files that are quantised, evaluation, the
//! choice of a device.

use std::path::Path;

use centuple::evaluate::{EvaluateOptions, Evaluated};
use centuple::export::{ExportFile, ExportOptions};
use centuple::optimize::Silent;
use centuple::receipt::metrics::Metric;
use centuple::tasks::{Engine, Output};
use centuple::{Choice, CudaFiles, Device, Error, Host, LoadOptions, Precision};
use centuple_cuda::{Architecture, Format, lower};
use centuple_graph::Op;
use centuple_onnx::File;

use crate::driver::Machine;
use crate::encoders::Failure;
use crate::engine::{HIDDEN, INNER, checkpoint, cosine, host, llama, sequences};

const GPU: Device = Device::Cuda(None);
/// Types of a tensor's elements in ONNX.
const FLOAT: i32 = 1;
const INT8: i32 = 3;
const TEXTS: [&str; 6] =
    ["a happy person", "the cat sat on the mat", "it is raining", "one two three", "nobody knows why", "good morning"];

/// The codes of linear layers in an ONNX file, `[outputs, inputs]`, and their scales.
fn layers(path: &Path) -> Result<Vec<[Vec<u8>; 2]>, Failure> {
    let file = File::open(path)?;
    let graph = file.model().graph.as_ref().ok_or("no graph")?;
    let is_matrix =
        |dims: &[i64]| dims.len() == 2 && dims.iter().all(|&size| [HIDDEN, INNER].contains(&(size as usize)));
    let mut found = Vec::new();
    for codes in graph.initializer.iter().filter(|tensor| tensor.data_type == INT8 && is_matrix(&tensor.dims)) {
        let (inputs, outputs) = (codes.dims[0] as usize, codes.dims[1] as usize);
        let turned = (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input)));
        let turned = turned.map(|(output, input)| codes.raw_data[input * outputs + output]).collect();
        let name = codes.name.replace("_quantized", "_scale");
        let scales = graph.initializer.iter().find(|tensor| tensor.name == name).ok_or("codes without scales")?;
        found.push([turned, scales.raw_data.to_vec()]);
    }
    Ok(found)
}

/// The ranges of bytes that the scales of activations in an ONNX file stand for, which have no zero point.
fn ranges(path: &Path) -> Result<Vec<[f32; 2]>, Failure> {
    let file = File::open(path)?;
    let graph = file.model().graph.as_ref().ok_or("no graph")?;
    let scales = graph.initializer.iter().filter(|tensor| tensor.data_type == FLOAT && tensor.dims.is_empty());
    let scales = scales.filter_map(|scale| scale.raw_data.first_chunk::<4>()).map(|bytes| f32::from_le_bytes(*bytes));
    Ok(scales.map(|scale| [-128.0 * scale, 127.0 * scale]).collect())
}

/// A layer's codes and scales reach the device as the file has them, alone or joined with those of others, and so do the ranges
/// of activations where the file fixes them.
#[test]
fn quantised_files_run_with_their_codes() -> Result<(), Failure> {
    let (machine, folder, host) = (Machine::new(Architecture::OLDEST, false)?, checkpoint()?, host()?);
    let out = tempfile::tempdir()?;
    let texts = out.path().join("texts.txt");
    std::fs::write(&texts, TEXTS.join("\n"))?;
    let options = ExportOptions {
        files: Some(vec![ExportFile::Quantized, ExportFile::Qdq]),
        calibrate: Some(texts),
        ..ExportOptions::default()
    };
    let exported = out.path().join("exported");
    host.export(&folder.path().display().to_string(), &exported, &options, &Silent)?;
    let on_cpu = LoadOptions { max_batch_tokens: 64, ..LoadOptions::default() };
    let on_gpu = LoadOptions { device: GPU, cuda: machine.files(), ..on_cpu.clone() };
    for file in [ExportFile::Quantized, ExportFile::Qdq] {
        let path = exported.join(file.name());
        let compiled = host.compile_folder(&path, "model", &on_gpu)?;
        assert_eq!((compiled.precision, compiled.device()), (Precision::Int8, GPU));
        let plan = lower(&compiled.graph, Format::F16)?;
        let has = |bytes: &[u8]| plan.weights().any(|weight| weight.windows(bytes.len()).any(|window| window == bytes));
        let layers = layers(&path)?;
        assert_eq!(layers.len(), 6, "{}", file.name());
        for [codes, scales] in &layers {
            assert!(has(codes) && has(scales), "{}: codes of {} bytes", file.name(), codes.len());
        }
        let of_file = ranges(&path)?;
        for node in compiled.graph.nodes() {
            if let Op::QuantizedLinear { bits, range, .. } = node.op {
                assert_eq!((bits, range.is_some()), (8, file == ExportFile::Qdq), "`{}`", node.name);
                assert!(range.is_none_or(|range| of_file.contains(&range)), "`{}`: {range:?}", node.name);
            }
        }
        let mut found = host.start(&compiled)?.engine;
        let mut expected = host.load_folder(&path, "model", &on_cpu)?.engine;
        for sequence in &sequences(found.limits().vocabulary) {
            let [found, expected]: [Output; 2] =
                [found.run(&[sequence])?.remove(0), expected.run(&[sequence])?.remove(0)];
            let cosine = cosine(&found, &expected);
            assert!(cosine >= 0.999, "{}: cosine {cosine}", file.name());
        }
    }
    Ok(())
}

/// What a device's precisions are worth on a file of examples.
fn evaluated(host: &Host, folder: &Path, examples: &str, options: EvaluateOptions) -> Result<Evaluated, Failure> {
    let file = folder.join("examples.jsonl");
    std::fs::write(&file, examples)?;
    Ok(host.evaluate(&folder.display().to_string(), &EvaluateOptions { examples: file, ..options }, &Silent)?)
}

fn evaluation(device: Device, cuda: CudaFiles) -> EvaluateOptions {
    EvaluateOptions { device, cuda, ..EvaluateOptions::of("examples.jsonl".into()) }
}

#[test]
fn precisions_of_gpus_are_evaluated_beside_f32_on_the_cpu() -> Result<(), Failure> {
    let (machine, host) = (Machine::new(Architecture::OLDEST, false)?, host()?);
    let pairs = TEXTS.iter().zip(TEXTS.iter().skip(1)).enumerate();
    let pair = |(index, (a, b)): (usize, (&&str, &&str))| {
        format!("{{\"sentence1\": \"{a}\", \"sentence2\": \"{b}\", \"score\": {}}}\n", index * 3 % 5)
    };
    let pairs: String = pairs.map(pair).collect();
    let texts: String = TEXTS.iter().map(|text| format!("{{\"text\": \"{text}\"}}\n")).collect();
    for (folder, examples, metric) in [
        (checkpoint()?, &pairs, Metric::Spearman),
        (checkpoint()?, &texts, Metric::MeanCosine),
        (llama()?, &texts, Metric::Perplexity),
    ] {
        let on_cpu = evaluated(&host, folder.path(), examples, evaluation(Device::Cpu, CudaFiles::default()))?;
        let on_gpu = evaluated(&host, folder.path(), examples, evaluation(GPU, machine.files()))?;
        assert_eq!(on_gpu.metric, metric);
        let kinds: Vec<_> = on_gpu.precisions.iter().map(|one| (one.precision, one.device)).collect();
        assert_eq!(kinds, [(Precision::F32, Device::Cpu), (Precision::F16, GPU), (Precision::Int8, GPU)]);
        assert_eq!(on_gpu.precisions[0].value, on_cpu.precisions[0].value, "the same reference");
        for one in &on_gpu.precisions[1..] {
            let drop = one.drop(metric).ok_or("nothing to compare with")?;
            let most = 0.01 * metric.points(on_cpu.precisions[0].value.value).abs();
            assert!(drop.abs() <= most, "{metric} {}: {drop} points", one.precision);
        }
        let [half, eighth] = [&on_gpu.precisions[1], &on_gpu.precisions[2]];
        assert!(eighth.weights < half.weights && half.weights < on_gpu.precisions[0].weights);
    }
    let fp8 = LoadOptions { precision: Some(Precision::Fp8), ..LoadOptions::default() };
    let options = EvaluateOptions { precisions: vec![fp8], ..evaluation(GPU, machine.files()) };
    let refused = evaluated(&host, checkpoint()?.path(), &texts, options);
    let refused = refused.err().ok_or("there are no such kernels")?.to_string();
    assert!(refused.contains("fp8 needs compute capability 8.9") && !refused.contains('\n'), "{refused}");
    Ok(())
}

/// The emulator is far slower than the CPU.
#[test]
fn the_fastest_device_computes() -> Result<(), Failure> {
    let (machine, host) = (Machine::new(Architecture::OLDEST, false)?, host()?);
    let options = LoadOptions {
        device: GPU,
        or_cpu: true,
        cuda: machine.files(),
        max_batch_tokens: 64,
        ..LoadOptions::default()
    };
    for folder in [checkpoint()?, llama()?] {
        let compiled = host.compile_folder(folder.path(), "model", &options)?;
        assert_eq!((compiled.device(), compiled.precision), (Device::Cpu, Precision::F32));
        let Some(Choice::Measured { cpu, other, device: GPU }) = compiled.choice else {
            return Err(format!("not measured: {:?}", compiled.choice).into());
        };
        assert!(other.alone > cpu.alone && other.queued > cpu.queued, "{cpu}, {other}");
    }
    let folder = checkpoint()?;
    let nowhere = CudaFiles { driver: Some("/nonexistent/libcuda.so.1".into()), ..machine.files() };
    let without_driver = LoadOptions { cuda: nowhere, ..options.clone() };
    let compiled = host.compile_folder(folder.path(), "model", &without_driver)?;
    let told = compiled.choice.as_ref().ok_or("nothing was chosen")?.to_string();
    assert!(told.starts_with("cpu computes: ") && told.contains("NVIDIA's driver"), "{told}");
    assert!(!told.contains('\n') && compiled.device() == Device::Cpu);
    let in_f32 =
        host.compile_folder(folder.path(), "model", &LoadOptions { precision: Some(Precision::F32), ..options })?;
    assert_eq!(in_f32.choice, Some(Choice::OnlyCpu("a model in f32 runs there only".to_owned())));
    assert!(matches!(
        host.load_folder(Path::new("/nonexistent"), "model", &without_driver),
        Err(Error::Model(_) | Error::Hub(_))
    ));
    Ok(())
}
