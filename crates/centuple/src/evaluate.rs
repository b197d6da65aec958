//! What each precision of a model is worth on examples, beside f32.

use std::path::{Path, PathBuf};

use centuple_receipt::data::{self, DataOptions};
use centuple_receipt::metrics::Metric;
use centuple_receipt::{Bootstrap, Estimate, Paired};
use centuple_tasks::Head;

use crate::artefact;
use crate::device::{CudaFiles, Device};
use crate::host::Host;
use crate::optimize::{Answers, Judge, OptimizeError, Progress, Runner};
use crate::options::{LoadOptions, id_of};
use crate::precision::Precision;

/// What is evaluated, and how.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// The file of examples.
    pub examples: PathBuf,
    /// How that file is read.
    pub data: DataOptions,
    /// How many of its first examples count; by default all.
    pub first: Option<usize>,
    /// The metric; by default the usual one of the task, and perplexity for models that generate.
    pub metric: Option<Metric>,
    /// The precisions, each with how it is quantised. By default f32 and all that the device has, or an artefact's own.
    pub precisions: Vec<LoadOptions>,
    /// What computes them, but for f32, which others are compared with: that is always the CPU's.
    pub device: Device,
    /// Files for GPUs.
    pub cuda: CudaFiles,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The metric.
    pub metric: Metric,
    /// How many examples were counted.
    pub examples: usize,
    /// Each precision, in the order asked for.
    pub precisions: Vec<EvaluatedPrecision>,
}

/// What a precision is worth.
#[derive(Clone, Debug)]
pub struct EvaluatedPrecision {
    /// The precision.
    pub precision: Precision,
    /// What has computed it.
    pub device: Device,
    /// Weights of a group, where the precision has groups.
    pub group: Option<usize>,
    /// The metric, a plain number.
    pub value: Estimate,
    /// Its difference to f32 on the same examples, where f32 was evaluated before.
    pub difference: Option<Paired>,
    /// Bytes of the weights in memory.
    pub weights: usize,
}

impl EvaluatedPrecision {
    /// Points of a metric that are lost against f32; negative where they are gained.
    pub fn drop(&self, metric: Metric) -> Option<f64> {
        self.difference.as_ref().map(|paired| metric.drop(0.0, paired.difference))
    }
}

impl EvaluateOptions {
    /// A file of examples, judged by the usual metric on the CPU in all of its precisions.
    pub fn of(examples: PathBuf) -> EvaluateOptions {
        EvaluateOptions {
            examples,
            data: DataOptions::default(),
            first: None,
            metric: None,
            precisions: Vec::new(),
            device: Device::Cpu,
            cuda: CudaFiles::default(),
            bootstrap: Bootstrap::default(),
        }
    }

    /// How each precision is loaded; `folder` is the model's.
    fn loads(&self, folder: &Path) -> Vec<LoadOptions> {
        let of = |precision| LoadOptions { precision: Some(precision), ..LoadOptions::default() };
        let wanted = match self.precisions.as_slice() {
            [] if artefact::is_artefact(folder) => vec![LoadOptions::default()],
            [] => {
                let others = self.device.precisions().iter().filter(|precision| **precision != Precision::F32);
                [Precision::F32].iter().chain(others).map(|&precision| of(precision)).collect()
            }
            asked => asked.to_vec(),
        };
        let on = |load: LoadOptions| match load.precision {
            Some(Precision::F32) => load,
            _ => LoadOptions { device: self.device, cuda: self.cuda.clone(), ..load },
        };
        wanted.into_iter().map(on).collect()
    }
}

impl Host {
    /// Evaluates a model by folder or hub id.
    ///
    /// # Errors
    /// The model or the examples can't be used, or `progress` says to stop.
    pub fn evaluate(
        &self,
        name: &str,
        options: &EvaluateOptions,
        progress: &dyn Progress,
    ) -> Result<Evaluated, OptimizeError> {
        progress.begin("reading the examples", 0);
        let mut examples = data::read(&options.examples, &options.data)?.examples;
        examples.truncate(options.first.unwrap_or(usize::MAX));
        let places: Vec<usize> = (0..examples.len()).collect();
        let usual = LoadOptions::default();
        let folder = options.precisions.first().unwrap_or(&usual).find(name)?;
        let mut metric = None;
        let mut float: Option<Answers> = None;
        let mut precisions = Vec::new();
        let loads = options.loads(&folder);
        for load in &loads {
            load.check()?;
        }
        for load in &loads {
            progress.begin("loading the model", 0);
            let compiled = self.compile_folder(&folder, &id_of(name, &folder), load)?;
            if compiled.encoder.is_some() {
                return Err(crate::Error::OnlyGenerates { model: compiled.model.card.id.clone() }.into());
            }
            let generates = matches!(compiled.model.card.head, Head::CausalLm { .. });
            let usual = generates.then_some(Metric::Perplexity);
            let judge = Judge::new(&compiled.model, &examples, &places, options.metric.or(usual))?;
            metric = Some(judge.metric());
            if progress.is_cancelled() {
                return Err(OptimizeError::Cancelled);
            }
            progress.begin(&format!("answering in {}", compiled.precision), 0);
            let mut runner = Runner::new(self, compiled.device_plan()?, &compiled.model, compiled.precision)?;
            let answers = judge.ask(&mut runner)?.answers;
            if compiled.precision == Precision::F32 {
                float.get_or_insert_with(|| answers.clone());
            } else if float.is_none() && !judge.is_labelled() {
                let reason = "they have no labels, so answers are compared with those in f32, which come first";
                return Err(OptimizeError::Examples(reason.to_owned()));
            }
            let baseline = float.as_ref().unwrap_or(&answers);
            let scored = judge.score(&answers, baseline)?;
            let difference = match &float {
                Some(float) if compiled.precision != Precision::F32 => {
                    Some(options.bootstrap.paired(&*judge.score(float, float)?, &*scored)?)
                }
                Some(_) | None => None,
            };
            let generates = compiled.model.card.head.generates();
            let quantization = compiled.precision.quantization(&load.quantization, generates);
            precisions.push(EvaluatedPrecision {
                precision: compiled.precision,
                device: compiled.device(),
                group: quantization.and_then(|quantization| quantization.groups),
                value: options.bootstrap.estimate(&*scored)?,
                difference,
                weights: runner.memory().weights,
            });
        }
        let metric = metric.ok_or_else(|| OptimizeError::Examples("no precision was asked for".to_owned()))?;
        Ok(Evaluated { metric, examples: examples.len(), precisions })
    }
}
