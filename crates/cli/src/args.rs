//! Every command and flag.

mod chat;
mod network;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use centuple::evaluate::EvaluateOptions;
use centuple::export::{self, ExportOptions};
use centuple::hub::DEFAULT_MODEL;
use centuple::kernels::Isa;
use centuple::optimize::OptimizeOptions;
use centuple::receipt::Bootstrap;
use centuple::receipt::data::{Columns, DataOptions, Format, Kind, Role};
use centuple::receipt::metrics::Metric;
use centuple::tasks::{GenerationTask, Task, UnknownTask};
use centuple::{CudaFiles, Device, GenerationOptions, Host, HostOptions, LoadOptions, Quantization};
use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::commands::Output;
pub(crate) use chat::Chat;
use network::Network;

/// Most tokens of a batch that can be asked for; far more than a machine computes in a second.
const MAX_TOKENS: u64 = 1 << 20;

/// Weights that may share a scale in 4 bits.
const INT4_GROUPS: RangeInclusive<usize> = 8..=1024;

/// Reads a whole number in a range.
fn number(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// Reads the name of an instruction set.
fn isa() -> impl TypedValueParser<Value = Isa> {
    let value = |isa: Isa| {
        let value = PossibleValue::new(isa.name());
        if isa.is_proven() { value } else { value.help("Never run on hardware, so never the default") }
    };
    PossibleValuesParser::new(Isa::ALL.map(value)).try_map(|name| name.parse::<Isa>())
}

/// Runs and serves Hugging Face transformers, fast, without Python.
///
/// MODEL is a folder with config.json, tokenizer.json and model.safetensors or model.onnx, an .onnx file with the others
/// beside it or one folder up, a .gguf file, or a hub id org/name[@revision].
/// Ids are looked up in the hub's cache and downloaded if they are not there.
#[derive(Debug, Parser)]
#[command(name = "centuple", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Box<Serve>),
    Run(Run),
    Chat(Chat),
    Dedupe(Dedupe),
    Optimize(Optimize),
    Eval(Eval),
    Export(Export),
    Bench(Bench),
    Inspect(Inspect),
    Pull(Pull),
}

/// Serve models over HTTP, to the clients of the Hugging Face and OpenAI APIs.
///
/// Routes: POST / and /models/{id} (Hugging Face tasks), POST /v1/embeddings, /v1/completions and
/// /v1/chat/completions (OpenAI), POST /generate and /generate_stream (text-generation-inference), POST /embed, /predict, /rerank and
/// others (text-embeddings-inference, Infinity), POST /v2/rerank (Cohere), /v2 (Open Inference Protocol, Triton), POST
/// /invocations (SageMaker), GET /health, /info, /metrics, /report.
/// Ctrl-C or SIGTERM finishes what is in flight and exits.
///
/// Every flag may also be set in the environment, as CENTUPLE_MAX_BODY_BYTES for --max-body-bytes (CENTUPLE_MODELS names the
/// models), and in a TOML file, as `max-body-bytes = 1000` or `models = ["a", "b"]`. The command line comes before the
/// environment, and that before the file.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// Models to serve: folders, .onnx or .gguf files or hub ids [default: sentence-transformers/all-MiniLM-L6-v2, unless there is a
    /// --model-repository].
    #[arg(value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Serve the models in the folders of DIR too, each under its folder's name, as NAME or ORG/NAME; folders in these
    /// that are numbers are versions. They are loaded when they are first asked for, and DIR is watched.
    #[arg(long, value_name = "DIR")]
    pub(crate) model_repository: Option<PathBuf>,
    /// How often --model-repository is looked at for models that are new, changed or gone; 0 never.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = interval)]
    pub(crate) watch_interval: Duration,
    /// Load the models of --model-repository as soon as they are there.
    #[arg(long, requires = "model_repository")]
    pub(crate) eager: bool,
    /// Most memory that all models may take together, as 2GiB or in bytes. Those that were not used for longest make room
    /// for others, and are loaded again when they are asked for. Without it, what is loaded stays.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_memory: Option<u64>,
    /// Longest that a request waits for its model to be loaded.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) load_timeout: u64,
    /// Let clients load, reload and unload models by POST /v2/repository/models/NAME/load and /unload.
    #[arg(long)]
    pub(crate) model_control: bool,
    /// TOML file of flags.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print all settings as TOML and where each comes from, and exit; secrets are not shown.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Address to listen on; 0.0.0.0 lets other machines in.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY`, once for each holder; better given by the environment
    /// or a file than here.
    #[arg(long, hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
    /// File of further keys, one a line: KEY or NAME: KEY. Holders share the engine evenly; names are what logs tell.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// How long a request may take; what is not answered by then is dropped and gets 408. Clients may ask for less by the
    /// header `x-request-timeout`, in seconds. By default as long as its client waits.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Which requests may be answered by outputs of earlier ones: those that ask for it by `x-use-cache: true` or
    /// `"options": {"use_cache": true}`, all but those that refuse it there, or none.
    #[arg(long, default_value = "asked", value_name = "WHEN")]
    pub(crate) cache: Cache,
    /// Most bytes of outputs that are kept for that.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub(crate) cache_bytes: usize,
    /// Most tokens computed together; what arrives meanwhile waits for the next batch.
    #[arg(long, default_value_t = 2048, value_name = "N", value_parser = number(1..=MAX_TOKENS))]
    pub(crate) max_batch_tokens: usize,
    /// Most requests that wait or are computed per model; above it the answer is 429.
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(crate) max_queued_requests: usize,
    /// Largest request body in bytes; above it the answer is 413.
    #[arg(long, default_value_t = 10 << 20, value_name = "BYTES")]
    pub(crate) max_body_bytes: usize,
    /// Whether the routes of text-embeddings-inference cut a text that is too long where a request does not say so;
    /// otherwise they refuse it.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) auto_truncate: bool,
    /// How long new requests are still answered after the signal to stop, while probes are told that the server isn't ready:
    /// as long as balancers need to notice.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) drain_delay: u64,
    /// How long requests in flight may take after that.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_timeout: u64,
    /// Share of the sequences that are answered again in f32, after the answer, to measure the drift; see /metrics.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) shadow: Option<f64>,
    /// The model that an optimised one was made of, for --shadow: a folder, an .onnx or .gguf file or a hub id; by default where it came from.
    #[arg(long, value_name = "MODEL", requires = "shadow")]
    pub(crate) shadow_model: Option<String>,
    /// Serve a model that has lost more accuracy than its budget allowed.
    #[arg(long)]
    pub(crate) accept_over_budget: bool,
    /// Log lines as text or as JSON, on standard error; RUST_LOG sets the level.
    #[arg(long, default_value = "text")]
    pub(crate) log: LogFormat,
    /// Leave out stages of computing, to measure what each brings; answers stay the same.
    #[arg(long, hide = true, value_delimiter = ',', value_name = "STAGES")]
    pub(crate) without: Vec<Stage>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) generation: Generation,
    #[command(flatten)]
    pub(crate) network: Network,
}

impl Serve {
    /// Whether a stage is to be left out.
    pub(crate) fn lacks(&self, stage: Stage) -> bool {
        self.without.contains(&stage)
    }
}

/// What of computing can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Ops are computed one by one, as the checkpoint's family has them.
    Fusion,
    /// Texts are padded to the longest one of their batch.
    Packing,
    /// Texts are computed one by one.
    Batching,
    /// Texts that are generated are computed anew for each token.
    KvCache,
}

/// Which requests may be answered by outputs of earlier ones.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Cache {
    /// Those that ask for it.
    Asked,
    /// All but those that refuse it.
    Always,
    /// None.
    Off,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Answer JSON Lines: one request a line in, one reply a line out, in the order of the input.
///
/// A line is the body that the server takes, as {"inputs": "some text", "parameters": {}}. A bad line is answered with
/// {"error": ...} and the rest goes on; the exit code is then 1. Empty lines are skipped.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// feature-extraction, sentence-similarity, text-classification, zero-shot-classification, token-classification,
    /// question-answering, fill-mask, text-ranking, text-generation, text2text-generation, summarization or translation, which is also
    /// translation_en_to_fr for any languages.
    #[arg(value_name = "TASK")]
    pub(crate) task: Asked,
    /// A folder, an .onnx or .gguf file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The requests; - is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) generation: Generation,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// What `run` may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// What a model answers in one run.
    Once(Task),
    /// What it answers token by token.
    Generated(GenerationTask),
}

impl std::str::FromStr for Asked {
    type Err = UnknownTask;

    fn from_str(name: &str) -> Result<Asked, UnknownTask> {
        if let Ok(task) = name.parse() {
            return Ok(Asked::Generated(task));
        }
        name.parse().map(Asked::Once)
    }
}

/// Flags of text-generation.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Text generation")]
pub(crate) struct Generation {
    /// Most memory for keys and values of all texts together, as 2GiB or in bytes; by default a quarter of what is free. A
    /// text that could never fit is refused; others wait.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) kv_memory: Option<u64>,
    /// Numbers that keys and values are kept as: f32 exactly; f16 and int8 round them, and hold 2 and almost 4 times the tokens.
    /// By default f32 where the model's precision is f32, else f16.
    #[arg(long, value_name = "PRECISION")]
    pub(crate) kv_precision: Option<KvPrecision>,
}

impl Generation {
    /// What these flags ask for.
    pub(crate) fn options(&self) -> GenerationOptions {
        let kv_memory = self.kv_memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        GenerationOptions { kv_memory, kv_precision: self.kv_precision.map(Into::into), ..GenerationOptions::default() }
    }
}

/// Numbers that keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvPrecision {
    /// As they are computed.
    F32,
    /// Half of the memory.
    F16,
    /// A bit more than a quarter, with a scale for each token and head.
    Int8,
}

impl From<KvPrecision> for centuple::kernels::KvPrecision {
    fn from(precision: KvPrecision) -> Self {
        match precision {
            KvPrecision::F32 => Self::F32,
            KvPrecision::F16 => Self::F16,
            KvPrecision::Int8 => Self::Int8,
        }
    }
}

/// Find texts that say the same, in the same words or in others, and keep one of each.
///
/// A text whose embedding is similar enough to that of an earlier text is a duplicate of the text that represents it; any other
/// is kept and represents those that follow. For each line, in order, comes
/// {"line": 17, "representative": 3, "similarity": 0.97}, the similarity being that with the nearest earlier text; a line that
/// represents itself is kept. Memory is below 1 GB and 512 bytes a line; vectors are kept in a temporary file, 2 bytes for each
/// number and line (TMPDIR names its folder). The result is the same in each run and with any number of threads.
///
/// A bad line is answered with {"line": 17, "error": ...} and the rest goes on; the exit code is then 1. Empty lines are
/// skipped. Texts are cut at the model's maximum length.
#[derive(Debug, Args)]
pub(crate) struct Dedupe {
    /// A text a line, JSON Lines, CSV or TSV; - is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A folder, an .onnx or .gguf file or a hub id of a model that embeds texts.
    #[arg(long, default_value = DEFAULT_MODEL, value_name = "MODEL")]
    pub(crate) model: String,
    /// Cosine from which on two texts say the same, in steps of 0.001. The default is for the default model and files whose texts
    /// differ; where texts share sentences or turns of phrase, take 0.9, which misses more duplicates and joins far fewer texts
    /// that differ in a fact.
    #[arg(long, default_value_t = 0.75, value_name = "COSINE", value_parser = threshold)]
    pub(crate) threshold: f32,
    /// Print the lines to keep, as they are, and nothing else.
    #[arg(long)]
    pub(crate) unique: bool,
    /// Print an object for each line that has duplicates, at the end:
    /// {"representative": 3, "members": [{"line": 17, "similarity": 0.97}]}.
    #[arg(long, conflicts_with = "unique")]
    pub(crate) clusters: bool,
    /// Field or column with the text; by default text or inputs.
    #[arg(long, value_name = "NAME")]
    pub(crate) field: Option<String>,
    /// Format of the file; by default as its name says, else JSON Lines if it begins with a brace, else plain text.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<TextFormat>,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// Format of a file of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextFormat {
    /// An object a line.
    Jsonl,
    /// A header, quotes as in RFC 4180.
    Csv,
    /// A header, no quotes.
    Tsv,
    /// A text a line.
    Txt,
}

impl Dedupe {
    /// The format that was given, or that the file's name says.
    pub(crate) fn format_of_file(&self) -> Option<TextFormat> {
        let extension = self.file.extension().and_then(|extension| extension.to_str());
        let named = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("jsonl" | "ndjson" | "json") => Some(TextFormat::Jsonl),
            Some("csv") => Some(TextFormat::Csv),
            Some("tsv") => Some(TextFormat::Tsv),
            Some("txt") => Some(TextFormat::Txt),
            Some(_) | None => None,
        };
        self.format.or(named)
    }

    /// What is printed.
    pub(crate) fn output(&self) -> Output {
        match (self.unique, self.clusters) {
            (true, _) => Output::Unique,
            (false, true) => Output::Clusters,
            (false, false) => Output::Lines,
        }
    }
}

fn threshold(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if (0.001..=1.0).contains(&number) { Ok(number) } else { Err("a cosine from 0.001 to 1 is wanted".to_owned()) }
}

/// Write an optimised model with the receipt of what it cost.
///
/// Measures what each precision does to each layer, searches the fastest one that loses no more than --max-drop points, and
/// judges it on examples that the search has not seen. The result is a folder for serve, run, bench and inspect.
#[derive(Debug, Args)]
pub(crate) struct Optimize {
    /// A folder, an .onnx or .gguf file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The folder to write; an optimised model that is there is replaced.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Precision of the linear layers: f32, f16, int8, int4 or int4:GROUP, layers that suffer from integers excepted; auto takes
    /// the fastest one within the budget on this machine.
    #[arg(long, default_value = "int8", value_name = "PRECISION", value_parser = target)]
    pub(crate) precision: Target,
    /// Examples: JSON Lines, CSV, TSV, Parquet or plain text; by default texts that are shipped, on which the model is
    /// compared with itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Metric of the verdict, as accuracy, f1_macro, matthews_correlation, spearman or pearson; by default the task's, which for
    /// models that generate is log_perplexity: a point of it is a percent of perplexity.
    #[arg(long, value_name = "METRIC", value_parser = metric)]
    pub(crate) metric: Option<Metric>,
    /// Most points that the metric may lose.
    #[arg(long, default_value_t = 0.4, value_name = "POINTS", value_parser = points)]
    pub(crate) max_drop: f64,
    /// Most milliseconds that one sequence of 128 tokens may take on this machine.
    #[arg(long, value_name = "MS", value_parser = points)]
    pub(crate) budget_ms: Option<f64>,
    /// Share of the examples that is kept for the verdict.
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = points)]
    pub(crate) verdict_share: f64,
    /// Seed of the split of the examples and of the bootstrap.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) resamples: u32,
    /// Most combinations of precisions that the search tries.
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = number(1..=10_000))]
    pub(crate) evaluations: usize,
    /// Write the model even if it is over its budget; serve then asks for --accept-over-budget.
    #[arg(long)]
    pub(crate) keep_over_budget: bool,
    #[command(flatten)]
    pub(crate) machine: MachineOnly,
}

/// How a file of examples is read.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Name a column of the examples, as label=stars; roles are inputs, pair, label, score, context, question, answers,
    /// entities, tokens and tags.
    #[arg(long, value_name = "ROLE=NAME", value_parser = column)]
    pub(crate) eval_column: Vec<(Role, String)>,
    /// Format of the examples, where the file's name doesn't say it: jsonl, csv, tsv, parquet or txt.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) eval_format: Option<Format>,
    /// What the examples are, where their columns leave it open: text, similarity, entities, answer or plain.
    #[arg(long, value_name = "KIND")]
    pub(crate) eval_kind: Option<Kind>,
    /// Names of the classes that the examples give by number, in the order of their numbers.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) eval_names: Vec<String>,
}

impl Reading {
    /// What these flags ask for.
    fn options(&self) -> DataOptions {
        let mut columns = Columns::default();
        for (role, name) in &self.eval_column {
            columns.set(*role, name);
        }
        let (format, kind, names) = (self.eval_format, self.eval_kind, self.eval_names.clone());
        DataOptions { format, kind, columns, names, ..DataOptions::default() }
    }
}

/// Print what each precision of a model is worth on examples, beside f32.
///
/// For models that generate that is the perplexity of texts: each alone, cut at the model's longest sequence, over all tokens
/// but the first of each.
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// A folder, an .onnx file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Examples: JSON Lines, CSV, TSV, Parquet or plain text.
    #[arg(value_name = "FILE")]
    pub(crate) examples: PathBuf,
    /// Evaluate the first examples only.
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX >> 1))]
    pub(crate) first: Option<usize>,
    /// Precisions of the linear layers: f32, f16, int8, int4 or int4:GROUP; by default f32 and all that the device has, or that of
    /// an optimised model. What comes after f32 is compared with it.
    #[arg(long, value_delimiter = ',', value_name = "PRECISIONS", value_parser = precision)]
    pub(crate) precision: Vec<Precision>,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// The metric; by default the task's, which for models that generate is perplexity.
    #[arg(long, value_name = "METRIC", value_parser = metric)]
    pub(crate) metric: Option<Metric>,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) resamples: u32,
    /// Fail where a precision loses more points than so many against f32.
    #[arg(long, value_name = "POINTS", value_parser = points)]
    pub(crate) max_drop: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// What computes all precisions but f32, which is always the CPU's: cpu; cuda for all NVIDIA GPUs, cuda:N for one.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) cuda: Cuda,
    #[command(flatten)]
    pub(crate) machine: MachineOnly,
}

impl Eval {
    /// What these flags ask for.
    pub(crate) fn options(&self) -> EvaluateOptions {
        EvaluateOptions {
            examples: self.examples.clone(),
            data: self.reading.options(),
            first: self.first,
            metric: self.metric,
            precisions: self.precision.iter().map(|precision| precision.load_options()).collect(),
            device: self.device,
            cuda: self.cuda.files(),
            bootstrap: Bootstrap { resamples: self.resamples, seed: self.seed },
        }
    }
}

/// What a model can be optimised to: a precision, or the fastest one within the budget on this machine.
type Target = Option<Precision>;

fn target(text: &str) -> Result<Target, String> {
    if text == "auto" { Ok(None) } else { precision(text).map(Some).map_err(|error| format!("{error}, or auto")) }
}

impl Optimize {
    /// What these flags ask for.
    pub(crate) fn options(&self) -> OptimizeOptions {
        OptimizeOptions {
            precision: self.precision.map(|precision| precision.of),
            max_drop: self.max_drop,
            budget_ms: self.budget_ms,
            eval: self.eval.clone(),
            data: self.reading.options(),
            metric: self.metric,
            seed: self.seed,
            verdict_share: self.verdict_share,
            resamples: self.resamples,
            evaluations: self.evaluations,
            keep_over_budget: self.keep_over_budget,
            load: LoadOptions { precision: None, ..self.precision.map(Precision::load_options).unwrap_or_default() },
        }
    }
}

fn column(text: &str) -> Result<(Role, String), String> {
    let (role, name) =
        text.split_once('=').ok_or_else(|| "write it as ROLE=NAME, for example label=stars".to_owned())?;
    Ok((role.parse()?, name.to_owned()))
}

fn metric(text: &str) -> Result<Metric, String> {
    let known = Metric::ALL.map(|metric| serde_json::to_value(metric).unwrap_or_default());
    let place = known.iter().position(|name| name == text);
    let names: Vec<&str> = known.iter().filter_map(|name| name.as_str()).collect();
    place.map(|place| Metric::ALL[place]).ok_or_else(|| format!("the metrics are {}", names.join(", ")))
}

fn share(text: &str) -> Result<f64, String> {
    points(text).and_then(|share| if share <= 1.0 { Ok(share) } else { Err("a share is at most 1".to_owned()) })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = points(text)?;
    if seconds == 0.0 {
        return Err("no request is answered in no time; leave it out for no limit".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn points(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("a number from 0 on is wanted".to_owned()) }
}

/// Reads a time in seconds, which may be none.
fn interval(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(points(text)?).map_err(|error| error.to_string())
}

/// Reads a number of bytes, as 2GiB, 500MB or 1073741824.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)));
    let (number, unit) = unit.unwrap_or((lower.strip_suffix('b').unwrap_or(&lower), 1));
    let number = number.trim_end();
    let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let part = || points(number).ok().map(|number| number * unit as f64).filter(|bytes| *bytes < u64::MAX as f64);
    match whole.or_else(|| part().map(|bytes| bytes as u64)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        Some(_) | None => Err("a number of bytes is wanted, as 2GiB, 500MB or 1073741824".to_owned()),
    }
}

/// Write a model as ONNX files, with tokenizer and configuration beside them.
///
/// The inputs are input_ids, attention_mask and, where the model knows them, token_type_ids, all int64 of dynamic shape; the
/// outputs have the names that Optimum gives them.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A folder, an .onnx or .gguf file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The folder to write; an export that is there is replaced.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What to write.
    #[arg(long, default_value = "onnx")]
    pub(crate) format: ExportFormat,
    /// Which files; by default all, qdq only with --calibrate. A Triton model is one of them, by default model.
    #[arg(long, value_delimiter = ',', value_name = "FILES")]
    pub(crate) files: Vec<ExportFile>,
    /// Texts that show the ranges of model_qdq.onnx: JSON Lines, CSV, TSV, Parquet or plain text.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibrate: Option<PathBuf>,
    /// Name a column of these texts, as inputs=review.
    #[arg(long, value_name = "ROLE=NAME", value_parser = column, requires = "calibrate")]
    pub(crate) calibrate_column: Vec<(Role, String)>,
    /// Size from which on weights go to a file of their own, model.onnx_data, as 500MB or in bytes; at most 2GiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_file_bytes: Option<u64>,
    /// Name of the model in a Triton repository; by default that of the folder or hub id.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineOnly,
}

/// What an export is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A folder of ONNX files.
    Onnx,
    /// A model repository for Triton's ONNX Runtime backend.
    Triton,
}

/// A file of an export.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFile {
    /// model.onnx: floats, operators of ONNX only.
    Model,
    /// model_optimized.onnx: floats, operators of ONNX Runtime too.
    Optimized,
    /// model_quantized.onnx: 8-bit integers, activations quantised as they come.
    Quantized,
    /// model_qdq.onnx: 8-bit integers by ranges that texts have shown, as TensorRT reads them.
    Qdq,
}

impl Export {
    /// What these flags ask for.
    pub(crate) fn options(&self) -> ExportOptions {
        let mut columns = Columns::default();
        for (role, name) in &self.calibrate_column {
            columns.set(*role, name);
        }
        let file = |file: &ExportFile| match file {
            ExportFile::Model => export::ExportFile::Model,
            ExportFile::Optimized => export::ExportFile::Optimized,
            ExportFile::Quantized => export::ExportFile::Quantized,
            ExportFile::Qdq => export::ExportFile::Qdq,
        };
        let defaults = ExportOptions::default();
        ExportOptions {
            format: match self.format {
                ExportFormat::Onnx => export::ExportFormat::Onnx,
                ExportFormat::Triton => export::ExportFormat::Triton,
            },
            files: (!self.files.is_empty()).then(|| self.files.iter().map(file).collect()),
            calibrate: self.calibrate.clone(),
            data: DataOptions { columns, ..DataOptions::default() },
            max_file_bytes: self
                .max_file_bytes
                .map_or(defaults.max_file_bytes, |bytes| bytes.min(defaults.max_file_bytes)),
            name: self.name.clone(),
            load: defaults.load,
        }
    }
}

/// Time a model on batches of random tokens, without tokenising.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A folder, an .onnx or .gguf file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Batches as SEQUENCESxTOKENS, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1x16,1x128,8x128,32x64", value_name = "BxS")]
    pub(crate) shapes: Vec<Shape>,
    /// Timed runs per shape; by default as many as fit a second, at least 10.
    #[arg(long, value_name = "N", value_parser = number(1..=1_000_000))]
    pub(crate) repeat: Option<usize>,
    /// Print one JSON object per shape.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// Show what a model is, what it became and what it needs.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A folder, an .onnx or .gguf file or a hub id.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Also print the graph before and after the passes, and what each pass did or refused to do.
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// Download a model, or find it where it is, and print its folder.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A hub id org/name[@revision].
    #[arg(value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub(crate) model: String,
}

/// Flags of every command that runs a model.
#[derive(Clone, Debug, Args)]
pub(crate) struct Machine {
    /// Precision of the computation: f32, f16, int8, int4, int4:GROUP with so many weights to a scale, or on GPUs bf16 and fp8; by default
    /// that of an optimised model, and f32 for every other (f16 on GPUs).
    #[arg(long, value_name = "PRECISION", value_parser = precision)]
    pub(crate) precision: Option<Precision>,
    /// What computes: cpu; cuda for all NVIDIA GPUs, cuda:N for one; fastest, which is cpu or cuda, whichever answers sooner when
    /// the model is loaded; auto, which is cpu until CUDA has run on a GPU, and then fastest.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = wanted_device)]
    pub(crate) device: WantedDevice,
    #[command(flatten)]
    pub(crate) cuda: Cuda,
    #[command(flatten)]
    pub(crate) only: MachineOnly,
}

/// What is to compute a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WantedDevice {
    device: Device,
    /// Whether the CPU takes its place where that answers sooner.
    or_cpu: bool,
}

fn wanted_device(text: &str) -> Result<WantedDevice, String> {
    if text == "fastest" {
        return Ok(WantedDevice { device: Device::Cuda(None), or_cpu: true });
    }
    let device = text.parse().map_err(|error| format!("{error}, or fastest"))?;
    Ok(WantedDevice { device, or_cpu: false })
}

/// Files that only GPUs need.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cuda {
    /// File of compiled CUDA kernels; without one they are compiled by NVRTC and kept in the user's cache.
    #[arg(long, value_name = "FILE", env = "CENTUPLE_CUDA_KERNELS")]
    pub(crate) cuda_kernels: Option<PathBuf>,
}

impl Cuda {
    fn files(&self) -> CudaFiles {
        CudaFiles { kernels: self.cuda_kernels.clone(), cache: cuda_cache(), ..CudaFiles::default() }
    }
}

/// What of the machine is used.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineOnly {
    /// Number of threads; by default the CPUs that affinity and control groups grant.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Instruction set; by default the best one here that is proven.
    #[arg(long, value_name = "ISA", value_parser = isa())]
    pub(crate) isa: Option<Isa>,
}

/// Precision of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Precision {
    of: centuple::Precision,
    /// Weights of a group, where it has groups.
    group: Option<usize>,
}

impl Precision {
    /// How a model is loaded in it.
    fn load_options(self) -> LoadOptions {
        let quantization = Quantization { groups: self.group, ..Quantization::default() };
        LoadOptions { precision: Some(self.of), quantization, ..LoadOptions::default() }
    }
}

/// Reads f32, f16, bf16, int8, fp8, int4, or int4:GROUP with a whole number of eights.
fn precision(text: &str) -> Result<Precision, String> {
    use centuple::Precision::{Bf16, F16, F32, Fp8, Int4, Int8};

    let all = [F32, F16, Bf16, Int8, Int4, Fp8];
    if let Some(of) = all.into_iter().find(|precision| precision.to_string() == text) {
        return Ok(Precision { of, group: None });
    }
    let group =
        text.strip_prefix("int4:").ok_or("the precisions are f32, f16, bf16, int8, int4, int4:GROUP and fp8")?;
    match group.parse() {
        Ok(group) if INT4_GROUPS.contains(&group) && group % 8 == 0 => Ok(Precision { of: Int4, group: Some(group) }),
        Ok(_) | Err(_) => {
            Err(format!("a group is a multiple of 8 from {} to {}", INT4_GROUPS.start(), INT4_GROUPS.end()))
        }
    }
}

impl MachineOnly {
    /// Starts the threads.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        let threads = self.threads.map(usize::from);
        Ok(Host::new(&HostOptions { threads, isa: self.isa })?)
    }
}

impl Machine {
    /// Starts the threads.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        self.only.host()
    }

    /// How these flags want a model loaded.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let options = self.precision.map(Precision::load_options).unwrap_or_default();
        let WantedDevice { device, or_cpu } = self.device;
        LoadOptions { device, or_cpu, cuda: self.cuda.files(), ..options }
    }
}

/// Where kernels that were compiled for a GPU are kept, as the XDG base directories say.
fn cuda_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("centuple").join("cuda"))
}

/// A batch of equally long sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) sequences: usize,
    pub(crate) tokens: usize,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let parse = |part: &str| part.parse().ok().filter(|&number: &usize| number > 0);
        let parts = text.split_once('x').and_then(|(left, right)| Some((parse(left)?, parse(right)?)));
        let (sequences, tokens) = parts.ok_or("expected SEQUENCESxTOKENS, as 8x128")?;
        match sequences.checked_mul(tokens) {
            Some(all) if all as u64 <= MAX_TOKENS => Ok(Shape { sequences, tokens }),
            _ => Err(format!("more than {MAX_TOKENS} tokens at once")),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.sequences, self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bytes_have_units() {
        let read = ["1073741824", "1GiB", "1.5 gib", "500MB", "2kb", "7 B"].map(bytes);
        assert_eq!(read, [1 << 30, 1 << 30, 3 << 29, 500_000_000, 2000, 7].map(Ok));
        for bad in ["", "GiB", "-1", "0", "1 GiBs", "nan", "inf", "99999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_are_checked() {
        assert_eq!("8x128".parse(), Ok(Shape { sequences: 8, tokens: 128 }));
        for bad in ["", "8", "x", "8x", "0x1", "8x-1", "8x99999999999999999999", "1x2x3", "1024x1025"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad}");
        }
    }
}
