//! Optimising with a receipt: measure each layer, search the precision of each, judge the result on examples that the
//! search never saw, and write the artefact together with what it cost.

mod judge;
mod layers;
mod runner;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use centuple_graph::Graph;
use centuple_passes::RoundedWeights;
use centuple_receipt::data::{self, Data, DataError, DataOptions, Example};
use centuple_receipt::metrics::{Metric, MetricError};
use centuple_receipt::report::{self, Findings, Receipt, ReceiptError, Variant, Verdict};
use centuple_receipt::search::{self, Evaluation, Outcome, SearchError};
use centuple_receipt::{Bootstrap, BootstrapError, Split, SplitError, SplitOptions};
use centuple_runtime::{RuntimeError, lower};
use centuple_tasks::{EngineError, Head};

use crate::artefact::{self, ArtefactError, Draft, Manifest, Origin};
use crate::calibrate;
use crate::device::Device;
use crate::device_engine::DevicePlan;
use crate::error::Error;
use crate::host::Host;
use crate::load::{Compiled, Source};
use crate::options::{LoadOptions, Target, id_of};
use crate::precision::Precision;
use crate::rounding;
pub(crate) use judge::{Answered, Answers, Judge};
pub(crate) use runner::{Runner, Time};

/// Texts for models that come without examples; calibration has others.
const SAMPLE: &str = include_str!("../sample.txt");

type Times = Vec<Time>;

/// What an optimisation is to be.
#[derive(Clone, Debug)]
pub struct OptimizeOptions {
    /// The precision; `None` picks the fastest one within the budget on this machine.
    pub precision: Option<Precision>,
    /// Most points that the metric may lose.
    pub max_drop: f64,
    /// Most milliseconds that one sequence of 128 tokens may take; of 64 or 16 where the model takes no more.
    pub budget_ms: Option<f64>,
    /// A file of examples; by default texts that are shipped, on which the model is compared with itself.
    pub eval: Option<PathBuf>,
    /// How that file is read.
    pub data: DataOptions,
    /// The metric; by default the usual one of the task.
    pub metric: Option<Metric>,
    /// Seed of the split and of the bootstrap.
    pub seed: u64,
    /// Share of the examples that the verdict gets.
    pub verdict_share: f64,
    /// Resamples of the bootstrap.
    pub resamples: u32,
    /// Most assignments that the search evaluates.
    pub evaluations: usize,
    /// Whether to write the artefact even if it is over its budget.
    pub keep_over_budget: bool,
    /// How the model is loaded.
    pub load: LoadOptions,
}

impl Default for OptimizeOptions {
    fn default() -> OptimizeOptions {
        OptimizeOptions {
            precision: Some(Precision::Int8),
            max_drop: 0.4,
            budget_ms: None,
            eval: None,
            data: DataOptions::default(),
            metric: None,
            seed: 0,
            verdict_share: SplitOptions::default().verdict,
            resamples: Bootstrap::default().resamples,
            evaluations: search::Limits::new(0.0).evaluations,
            keep_over_budget: false,
            load: LoadOptions::default(),
        }
    }
}

/// Who is told how far an optimisation is, and may end it.
pub trait Progress: Sync {
    /// A part begins, of that many steps; 0 where it has one.
    fn begin(&self, part: &str, steps: usize);
    /// A step of it is done.
    fn advance(&self);
    /// Whether to stop.
    fn is_cancelled(&self) -> bool;
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _part: &str, _steps: usize) {}
    fn advance(&self) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Why a model could not be optimised.
#[derive(Debug, thiserror::Error)]
pub enum OptimizeError {
    /// The model can't be loaded, or the artefact can't be written.
    #[error(transparent)]
    Model(#[from] Error),
    /// The examples can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The examples can't be split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// An example doesn't suit the model.
    #[error("example {place}: {reason}")]
    Example {
        /// Its place in the file, from 0.
        place: usize,
        /// What is wrong.
        reason: String,
    },
    /// The examples don't suit the model.
    #[error("the examples do not suit the model: {0}")]
    Examples(String),
    /// The metric can't be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// There is no interval.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The model can't be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The search was given nonsense; the metric is not defined on the examples.
    #[error("the search failed: {0}")]
    Search(String),
    /// The receipt can't be written.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The model is an artefact already.
    #[error("{} is optimised already; name the model that it was made of", .0.display())]
    Already(PathBuf),
    /// It was told to stop.
    #[error("stopped; nothing was written")]
    Cancelled,
}

impl From<RuntimeError> for OptimizeError {
    fn from(error: RuntimeError) -> OptimizeError {
        OptimizeError::Model(error.into())
    }
}

impl From<ArtefactError> for OptimizeError {
    fn from(error: ArtefactError) -> OptimizeError {
        OptimizeError::Model(error.into())
    }
}

/// What came of an optimisation.
#[derive(Clone, Debug)]
pub struct Optimized {
    /// What it cost and gained.
    pub receipt: Receipt,
    /// The artefact; `None` where a budget was not met, so that none was written.
    pub manifest: Option<Manifest>,
    /// Why there is none, in a sentence.
    pub refusal: Option<String>,
}

/// What all steps need.
struct Bench<'a> {
    host: &'a Host,
    options: &'a OptimizeOptions,
    progress: &'a dyn Progress,
    source: Source,
}

impl Bench<'_> {
    /// An engine over a graph of the model, which is of that precision.
    fn engine(&self, graph: &Graph, precision: Precision) -> Result<Runner, OptimizeError> {
        let plan = DevicePlan::Cpu { plan: Arc::new(lower(graph, self.host.isa)?), encoder: None };
        Ok(Runner::new(self.host, plan, &self.source.model, precision)?)
    }

    fn check(&self) -> Result<(), OptimizeError> {
        if self.progress.is_cancelled() { Err(OptimizeError::Cancelled) } else { Ok(()) }
    }

    /// Median milliseconds of every shape that the model takes.
    fn time(&self, engine: &mut Runner, precision: Precision) -> Result<Times, OptimizeError> {
        let shapes = engine.shapes();
        self.progress.begin(&format!("timing {precision}"), shapes.len());
        let mut times = Vec::new();
        for shape in shapes {
            self.check()?;
            times.push(engine.time(shape)?);
            self.progress.advance();
        }
        Ok(times)
    }
}

/// A way to compute the model.
struct Candidate {
    precision: Precision,
    graph: Graph,
    layers: Vec<report::Layer>,
    points: Vec<report::SearchPoint>,
    /// Whether the search found something within the budget.
    found: bool,
    times: Times,
    answered: Rc<Answered>,
    weights: usize,
}

impl Host {
    /// Optimises a model by folder or hub id and writes the artefact to `target`, unless a budget is not met.
    ///
    /// The same source, examples, options and version give the same bytes, `report.json` and `report.html` apart.
    ///
    /// # Errors
    /// The model or the examples can't be used, `target` is taken, or `progress` says to stop.
    pub fn optimize(
        &self,
        name: &str,
        target: &Path,
        options: &OptimizeOptions,
        progress: &dyn Progress,
    ) -> Result<Optimized, OptimizeError> {
        artefact::check_target(target)?;
        options.precision.map_or(Ok(()), |precision| Device::Cpu.takes(precision))?;
        progress.begin("reading the model", 0);
        let folder = options.load.find(name)?;
        if artefact::is_artefact(&folder) {
            return Err(OptimizeError::Already(folder));
        }
        let source = Source::open(&folder, &id_of(name, &folder), &options.load)?.of_one_graph()?;
        let (plain, _) = centuple_passes::optimize(&source.plain).map_err(Error::from)?;
        let bench = Bench { host: self, options, progress, source };
        bench.run(&folder, &plain, target)
    }
}

impl Bench<'_> {
    fn run(self, folder: &Path, plain: &Graph, target: &Path) -> Result<Optimized, OptimizeError> {
        let Bench { host, options, progress, .. } = self;
        let (name, data) = self.examples()?;
        let split = Split::new(&data.examples, SplitOptions { seed: options.seed, verdict: options.verdict_share })?;
        let judge = |places: &[usize]| Judge::new(&self.source.model, &data.examples, places, options.metric);
        let (search, verdict) = (judge(&split.search)?, judge(&split.verdict)?);

        progress.begin("answering in f32", 2);
        let mut engine = self.engine(plain, Precision::F32)?;
        let searched = search.ask(&mut engine)?;
        progress.advance();
        let baseline = Rc::new(verdict.ask(&mut engine)?);
        progress.advance();
        let float_times = self.time(&mut engine, Precision::F32)?;
        let float_weights = engine.memory().weights;
        drop(engine);

        let mut candidates = Vec::new();
        let wanted = options.precision.map_or_else(|| self.all_precisions(), |one| vec![one]);
        for precision in wanted {
            candidates.push(match precision {
                Precision::F32 => Candidate {
                    precision,
                    graph: plain.clone(),
                    layers: Vec::new(),
                    points: Vec::new(),
                    found: true,
                    times: float_times.clone(),
                    answered: Rc::clone(&baseline),
                    weights: float_weights,
                },
                Precision::F16 => {
                    let (halved, _) = centuple_passes::halve_weights(plain).map_err(Error::from)?;
                    self.candidate(precision, halved, &verdict)?
                }
                // It was refused before anything was read: artefacts are what the CPU computes, too.
                Precision::Fp8 | Precision::Bf16 => return Err(Error::OnlyCuda { precision }.into()),
                Precision::Int8 | Precision::Int4 => {
                    self.search(precision, plain, &data.examples, &split, (&search, &searched), &verdict)?
                }
            });
        }
        let drop_of = |candidate: &Candidate| verdict.drop(&candidate.answered.answers, &baseline.answers);
        let mut best: Option<(bool, f64, Candidate)> = None;
        for candidate in candidates {
            let within = candidate.found && drop_of(&candidate)? <= options.max_drop;
            let speed = relative_time(&candidate.times, &float_times);
            if best.as_ref().is_none_or(|(other, time, _)| (within, -speed) > (*other, -time)) {
                best = Some((within, speed, candidate));
            }
        }
        let (within, _, candidate) = best.ok_or_else(|| OptimizeError::Search("no precision was tried".to_owned()))?;

        progress.begin("weighing the verdict", 0);
        let accuracy = self.accuracy(&verdict, &candidate.answered.answers, &baseline.answers)?;
        let dataset = report::Dataset {
            name,
            sha256: data.sha256.clone(),
            search_examples: split.search.len(),
            verdict_examples: split.verdict.len(),
            labelled: verdict.is_labelled(),
        };
        let verdict_is = match (within, verdict.is_labelled()) {
            (false, _) => Verdict::Over,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Unlabelled,
        };
        let mut refusal = (!within).then(|| {
            let metric = verdict.metric();
            let drop = metric.drop(0.0, accuracy.paired.difference / metric.unit());
            format!(
                "{metric} loses {drop:.2} points on examples that the search has not seen, the budget is {}",
                options.max_drop
            )
        });
        if !candidate.found {
            let (tried, allowed) = (candidate.points.len(), options.max_drop);
            refusal = Some(format!(
                "of the precisions that the search tried, {tried} in all, none loses {allowed} points or less"
            ));
        }
        let at_budget = candidate.times.iter().rev().find(|((sequences, _), _)| *sequences == 1);
        if let (Some(budget), Some(((_, tokens), median))) = (options.budget_ms, at_budget)
            && *median > budget
        {
            refusal = Some(format!("a sequence of {tokens} tokens takes {median:.3} ms, the budget is {budget} ms"));
        }
        let origin = Origin::of(&self.source.model.card.id, folder)?;
        let findings = Findings {
            format: report::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: report::Source { id: origin.model.clone(), sha256: origin.sha256.clone() },
            task: self.source.model.card.main_task().name().to_owned(),
            precision: report::Precision {
                asked: options.precision.map_or_else(|| "auto".to_owned(), |precision| precision.to_string()),
                chosen: candidate.precision.to_string(),
            },
            seed: options.seed,
            resamples: options.resamples as usize,
            warnings: dataset.warning().into_iter().collect(),
            dataset: Some(dataset),
            accuracy: Some(accuracy),
            max_drop: Some(options.max_drop),
            verdict: verdict_is,
            layers: candidate.layers.clone(),
            search: candidate.points.clone(),
        };
        let measured = self.measured(&candidate, &float_times, (float_weights as u64, artefact::weight_bytes(folder)?));
        let receipt = Receipt { findings, measured };
        self.check()?;
        if refusal.is_some() && !options.keep_over_budget {
            return Ok(Optimized { receipt, manifest: None, refusal });
        }
        progress.begin("writing the artefact", 0);
        let predictions = verdict.lines(&candidate.answered.answers, &baseline.answers);
        let Candidate { precision, graph, .. } = candidate;
        let compiled: Compiled = host.lower(self.source, graph, Vec::new(), precision, Target::default())?;
        let reports =
            [("report.json", receipt.to_json()?.into_bytes()), ("report.html", receipt.to_html().into_bytes())];
        let findings = Some(receipt.findings.clone());
        let files = [("predictions.jsonl", predictions)];
        let draft =
            Draft { source: folder, origin, compiled: &compiled, receipt: findings, files: &files, reports: &reports };
        let manifest = draft.write(target)?;
        Ok(Optimized { receipt, manifest: Some(manifest), refusal })
    }

    /// What `auto` chooses from. Encoders, which are bound by arithmetic, gain nothing by 4-bit weights.
    fn all_precisions(&self) -> Vec<Precision> {
        let all = [Precision::Int4, Precision::Int8, Precision::F16, Precision::F32];
        let generates = matches!(self.source.model.card.head, Head::CausalLm { .. });
        all.into_iter().filter(|precision| generates || *precision != Precision::Int4).collect()
    }

    /// The examples of the user's file, or those that are shipped, and what they are called.
    fn examples(&self) -> Result<(String, Data), OptimizeError> {
        self.progress.begin("reading the examples", 0);
        let Some(path) = &self.options.eval else {
            let data = data::parse(Path::new("sample.txt"), SAMPLE.into(), &DataOptions::default())?;
            return Ok(("shipped texts".to_owned(), data));
        };
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok((name, data::read(path, &self.options.data)?))
    }

    /// A model whose precision leaves nothing to search.
    fn candidate(&self, precision: Precision, graph: Graph, verdict: &Judge<'_>) -> Result<Candidate, OptimizeError> {
        let mut engine = self.engine(&graph, precision)?;
        self.progress.begin(&format!("answering in {precision}"), 0);
        let answered = Rc::new(verdict.ask(&mut engine)?);
        let times = self.time(&mut engine, precision)?;
        let weights = engine.memory().weights;
        let (layers, points) = (Vec::new(), Vec::new());
        Ok(Candidate { precision, graph, layers, points, found: true, times, answered, weights })
    }

    /// The cheapest integers within the budget, as far as the search's examples tell.
    fn search(
        &self,
        precision: Precision,
        plain: &Graph,
        examples: &[Example],
        split: &Split,
        (search, searched): (&Judge<'_>, &Answered),
        verdict: &Judge<'_>,
    ) -> Result<Candidate, OptimizeError> {
        self.progress.begin("calibrating", 0);
        let own = split.search.iter().flat_map(|&place| examples[place].texts());
        let tokenizer = &self.source.model.tokenizer;
        let observations = calibrate::observe(self.host, plain, None, tokenizer, own, false)?;
        let generates = self.source.model.card.head.generates();
        let base = precision.quantization(&self.options.load.quantization, generates).unwrap_or_default();
        let mut rounded = RoundedWeights::default();
        if precision.groups() {
            self.progress.begin("rounding", 0);
            // Not by the search's own texts, which would then be judged too well.
            rounded = rounding::round(self.host, plain, tokenizer, &observations, &base)?;
        }
        let quantizing = layers::Quantizing::new(plain, &observations, rounded, base);
        let measured = layers::measure(self, &quantizing, search.sequences())?;
        let names: Vec<String> = measured.iter().map(|layer| layer.name.clone()).collect();
        let layers: Vec<search::Layer> = measured.iter().map(layers::Measured::to_search).collect();
        let limits =
            search::Limits { evaluations: self.options.evaluations, ..search::Limits::new(self.options.max_drop) };
        self.progress.begin("searching", self.options.evaluations);
        let outcome = search::search(&layers, &limits, |rungs| {
            self.check()?;
            let graph = quantizing.on(&names, rungs)?;
            let answered = search.ask(&mut self.engine(&graph, precision)?)?;
            self.progress.advance();
            let drop = search.drop(&answered.answers, &searched.answers)?;
            Ok(Evaluation { drop, error: answered.error(searched) })
        });
        let outcome = outcome.map_err(|error| match error {
            SearchError::Evaluation(error) => error,
            SearchError::Layer { .. } | SearchError::NotFinite(_) => OptimizeError::Search(error.to_string()),
        })?;
        let points = report::SearchPoint::all(&outcome);
        let (found, rungs) = match &outcome {
            Outcome::Met { chosen, points } => (true, points[*chosen].assignment.clone()),
            // What loses least.
            Outcome::Refused { points, .. } => {
                let least = points.iter().min_by(|a, b| a.drop.total_cmp(&b.drop));
                (false, least.map_or_else(Vec::new, |point| point.assignment.clone()))
            }
        };
        let graph = quantizing.on(&names, &rungs)?;
        let layers = measured.iter().zip(&rungs).map(|(layer, &rung)| layer.to_report(rung)).collect();
        Ok(Candidate { layers, points, found, ..self.candidate(precision, graph, verdict)? })
    }

    fn accuracy(
        &self,
        verdict: &Judge<'_>,
        answers: &Answers,
        baseline: &Answers,
    ) -> Result<report::Accuracy, OptimizeError> {
        let bootstrap = Bootstrap { resamples: self.options.resamples, seed: self.options.seed };
        let (optimised, float) = (verdict.score(answers, baseline)?, verdict.score(baseline, baseline)?);
        let metric = verdict.metric();
        let estimate = |scored| {
            let of = bootstrap.estimate(scored)?;
            let [value, low, high] = [of.value, of.low, of.high].map(|value| metric.points(value));
            Ok::<_, OptimizeError>(report::Estimate { value, low, high })
        };
        let paired = bootstrap.paired(&*float, &*optimised)?;
        let [difference, low, high] = [paired.difference, paired.low, paired.high].map(|value| metric.points(value));
        Ok(report::Accuracy {
            metric: if metric.unit() == 100.0 { format!("{metric} x100") } else { metric.to_string() },
            baseline: estimate(&*float)?,
            optimised: estimate(&*optimised)?,
            paired: report::Paired { difference, low, high },
        })
    }

    /// What was measured here; `float_bytes` are those of the f32 weights in memory and on the disk.
    fn measured(&self, candidate: &Candidate, float_times: &[Time], float_bytes: (u64, u64)) -> report::Measured {
        let of = |variant: Variant, times: &[Time]| {
            let timing = |&((sequences, tokens), median_ms): &Time| report::Timing {
                shape: report::Shape { sequences, tokens },
                variant,
                median_ms,
                tokens_per_second: (sequences * tokens) as f64 / median_ms * 1e3,
                threads: self.host.threads(),
                isa: self.host.isa().to_string(),
            };
            times.iter().map(timing).collect::<Vec<_>>()
        };
        let weights = report::Size { f32: float_bytes.0, optimised: candidate.weights as u64 };
        report::Measured {
            timings: [of(Variant::F32, float_times), of(Variant::Optimised, &candidate.times)].concat(),
            // The artefact's weights lie on the disk as they lie in memory.
            sizes: report::Sizes {
                file: Some(report::Size { f32: float_bytes.1, optimised: weights.optimised }),
                weights: Some(weights),
                ..report::Sizes::default()
            },
            machine: Some(machine(self.host)),
        }
    }
}

/// Geometric mean of the times relative to those of f32.
fn relative_time(times: &[Time], float: &[Time]) -> f64 {
    let logs = times.iter().zip(float).map(|((_, time), (_, float))| (time / float).ln());
    (logs.sum::<f64>() / times.len().max(1) as f64).exp()
}

/// The machine, as far as the system tells.
fn machine(host: &Host) -> report::Machine {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let processor = name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned();
    report::Machine { processor, cores: host.threads(), system }
}
