//! `modules.json` and the modules after the transformer.

use std::fmt;
use std::path::{Path, PathBuf};

use centuple_tensor::Tensor;
use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::json::{join_inside, read_json, read_json_if_present};
use crate::checkpoint::{CheckpointError, Weights};

/// The feature that pooling writes and the modules after it read and replace.
const SENTENCE_EMBEDDING: &str = "sentence_embedding";

/// What a folder's modules make of the transformer's output.
#[derive(Debug, Clone)]
pub enum Composition {
    /// One vector per text.
    Embedding {
        /// From token features to one vector.
        pooling: Pooling,
        /// What happens to that vector, in order.
        head: Vec<HeadModule>,
    },
    /// One weight per token of the vocabulary (SPLADE, Formal et al. 2021, arXiv:2107.05720): of the transformer's masked
    /// language model.
    Sparse(SpladePooling),
    /// One vector per token (ColBERT, Khattab and Zaharia 2020, arXiv:2004.12832): each through these layers, then of
    /// length 1.
    LateInteraction(Vec<Dense>),
}

/// From logits of the vocabulary for every token to one weight each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpladePooling {
    /// How tokens become one row: the maximum or the sum.
    pub strategy: SpladeStrategy,
    /// Whether the logarithm `ln(1 + x)` is taken twice.
    pub log_twice: bool,
}

/// How the tokens of a text are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpladeStrategy {
    /// The largest value of each column.
    #[default]
    Max,
    /// The sum of each column.
    Sum,
}

/// Reduction of `[tokens, dimension]` features to one vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// Width of a token's features.
    pub dimension: usize,
    /// The reductions whose results are concatenated, in this order; at least one.
    pub modes: Vec<PoolingMode>,
    /// Whether the tokens of a prompt take part.
    pub include_prompt: bool,
}

/// One reduction over the tokens of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingMode {
    /// The first token.
    Cls,
    /// The maximum of each feature.
    Max,
    /// The mean.
    Mean,
    /// The sum, divided by the square root of the number of tokens.
    #[serde(rename = "mean_sqrt_len_tokens")]
    MeanSqrtLen,
    /// The mean, weighted by the token's position in the whole sequence, counted from 1.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// A module after the pooling.
#[derive(Debug, Clone)]
pub enum HeadModule {
    /// A linear layer with an activation.
    Dense(Dense),
    /// Division by the Euclidean norm, or by 1e-12 where the norm is smaller.
    Normalize,
}

/// `activation(weight · x + bias)`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// `[out_features, in_features]`.
    pub weight: Tensor,
    /// `[out_features]`.
    pub bias: Option<Tensor>,
    /// The function applied to each output.
    pub activation: DenseActivation,
}

/// The activation of a [`Dense`] module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
    /// GELU by the error function.
    Gelu,
    /// Logistic function.
    Sigmoid,
    /// x · sigmoid(x).
    Silu,
}

/// One entry of `modules.json`.
#[derive(Deserialize)]
pub(super) struct Entry {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

/// What `modules.json` lists.
pub(super) struct Modules {
    pub(super) transformer: PathBuf,
    pub(super) composition: Composition,
}

/// Reads the modules that `entries`, the content of the file `path` in `folder`, list.
pub(super) fn read(folder: &Path, path: &Path, entries: Vec<Entry>) -> Result<Modules, CheckpointError> {
    let place = |entry: &Entry| {
        join_inside(folder, &entry.path).ok_or_else(|| {
            CheckpointError::config(path, format!("the module path `{}` leads out of the model's folder", entry.path))
        })
    };
    let unsupported = || {
        let classes: Vec<&str> = entries.iter().map(|entry| entry.class.as_str()).collect();
        let reason = format!(
            "the modules [{}] are not supported; sentence_transformers' Transformer, then Pooling, then Dense and \
             Normalize are, its MLMTransformer with SpladePooling, and its Transformer with PyLate's Dense",
            classes.join(", ")
        );
        CheckpointError::config(path, reason)
    };
    let [transformer, rest @ ..] = entries.as_slice() else { return Err(unsupported()) };
    let composition = match (transformer.kind(), rest) {
        (Some("Transformer"), [pooling, rest @ ..]) if pooling.kind() == Some("Pooling") => {
            let pooling = Pooling::open(&place(pooling)?)?;
            let head = head_modules(rest, pooling.output_dimension(), place, unsupported)?;
            Composition::Embedding { pooling, head }
        }
        (Some("Transformer"), dense) if !dense.is_empty() && dense.iter().all(|entry| entry.is_pylate("Dense")) => {
            let layers = dense.iter().map(|entry| Dense::open(&place(entry)?, None)).collect::<Result<_, _>>()?;
            Composition::LateInteraction(layers)
        }
        (Some("MLMTransformer"), [pooling]) if pooling.kind() == Some("SpladePooling") => {
            Composition::Sparse(SpladePooling::open(&place(pooling)?)?)
        }
        _ => return Err(unsupported()),
    };
    Ok(Modules { transformer: place(transformer)?, composition })
}

/// The modules behind a pooling that yields rows of `width`.
fn head_modules(
    entries: &[Entry],
    mut width: usize,
    place: impl Fn(&Entry) -> Result<PathBuf, CheckpointError>,
    unsupported: impl Fn() -> CheckpointError,
) -> Result<Vec<HeadModule>, CheckpointError> {
    let mut head = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry.kind() {
            Some("Dense") => {
                let dense = Dense::open(&place(entry)?, Some(width))?;
                width = dense.out_features();
                head.push(HeadModule::Dense(dense));
            }
            Some("Normalize") => {
                check_normalize(&place(entry)?)?;
                head.push(HeadModule::Normalize);
            }
            // Acts in training only.
            Some("Dropout") => {}
            _ => return Err(unsupported()),
        }
    }
    Ok(head)
}

impl Entry {
    /// The class name of one of the library's own modules, whose packages have moved between versions.
    fn kind(&self) -> Option<&str> {
        self.class.strip_prefix("sentence_transformers.")?.rsplit('.').next()
    }

    /// Whether it is a module of PyLate of this name.
    fn is_pylate(&self, kind: &str) -> bool {
        self.class.strip_prefix("pylate.").and_then(|class| class.rsplit('.').next()) == Some(kind)
    }
}

impl SpladePooling {
    fn open(folder: &Path) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            #[serde(default)]
            pooling_strategy: SpladeStrategy,
            #[serde(default)]
            activation_function: Activation,
            #[serde(alias = "word_embedding_dimension", rename = "embedding_dimension")]
            _dimension: Option<usize>,
            #[serde(rename = "chunk_size")]
            _chunk_size: Option<usize>,
        }
        #[derive(Default, PartialEq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Activation {
            #[default]
            Relu,
            Log1pRelu,
        }

        let Config { pooling_strategy, activation_function, .. } = read_json(&folder.join("config.json"))?;
        Ok(Self { strategy: pooling_strategy, log_twice: activation_function == Activation::Log1pRelu })
    }
}

impl Pooling {
    /// Width of the pooled vector: that of a token's features, once per mode.
    pub fn output_dimension(&self) -> usize {
        self.dimension.saturating_mul(self.modes.len())
    }

    fn open(folder: &Path) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            #[serde(alias = "word_embedding_dimension")]
            embedding_dimension: usize,
            pooling_mode: Option<Value>,
            #[serde(default)]
            pooling_mode_cls_token: bool,
            #[serde(default)]
            pooling_mode_max_tokens: bool,
            #[serde(default)]
            pooling_mode_mean_tokens: bool,
            #[serde(default)]
            pooling_mode_mean_sqrt_len_tokens: bool,
            #[serde(default)]
            pooling_mode_weightedmean_tokens: bool,
            #[serde(default)]
            pooling_mode_lasttoken: bool,
            include_prompt: Option<bool>,
        }

        let path = folder.join("config.json");
        let config: Config = read_json(&path)?;
        let mut modes: Vec<PoolingMode> = match config.pooling_mode {
            Some(Value::Array(modes)) => serde_json::from_value(Value::Array(modes)),
            Some(mode) => serde_json::from_value(Value::Array(vec![mode])),
            None => Ok([
                (config.pooling_mode_cls_token, PoolingMode::Cls),
                (config.pooling_mode_max_tokens, PoolingMode::Max),
                (config.pooling_mode_mean_tokens, PoolingMode::Mean),
                (config.pooling_mode_mean_sqrt_len_tokens, PoolingMode::MeanSqrtLen),
                (config.pooling_mode_weightedmean_tokens, PoolingMode::WeightedMean),
                (config.pooling_mode_lasttoken, PoolingMode::LastToken),
            ]
            .into_iter()
            .filter_map(|(active, mode)| active.then_some(mode))
            .collect()),
        }
        .map_err(|source| CheckpointError::Json { path, source })?;
        if modes.is_empty() {
            modes.push(PoolingMode::Mean);
        }
        Ok(Self { dimension: config.embedding_dimension, modes, include_prompt: config.include_prompt.unwrap_or(true) })
    }
}

impl fmt::Display for PoolingMode {
    /// Writes the mode as sentence-transformers spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        })
    }
}

impl Dense {
    /// Width of the output.
    pub fn out_features(&self) -> usize {
        self.weight.shape().first().copied().unwrap_or(0)
    }

    /// Reads a Dense module whose input is `width` wide, where that is known.
    fn open(folder: &Path, width: Option<usize>) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            in_features: usize,
            out_features: usize,
            bias: Option<bool>,
            activation_function: Option<String>,
            #[serde(default)]
            use_residual: bool,
            module_input_name: Option<String>,
            module_output_name: Option<String>,
        }

        let path = folder.join("config.json");
        let config: Config = read_json(&path)?;
        let found = config.in_features;
        if let Some(width) = width.filter(|width| *width != found) {
            return Err(CheckpointError::config(&path, format!("in_features is {found}, but its input has {width}")));
        }
        if config.use_residual {
            return Err(CheckpointError::config(&path, "use_residual is not supported".to_string()));
        }
        check_feature(&path, "module_input_name", config.module_input_name)?;
        check_feature(&path, "module_output_name", config.module_output_name)?;
        let activation = match config.activation_function.as_deref() {
            None => DenseActivation::Tanh,
            Some(name) => DenseActivation::from_torch(name).ok_or_else(|| {
                CheckpointError::config(&path, format!("activation_function `{name}` is not supported"))
            })?,
        };
        let weights = Weights::open(folder)?;
        let (inputs, outputs) = (config.in_features, config.out_features);
        let weight = weights.tensor("linear.weight", &[outputs, inputs])?;
        let bias = match config.bias {
            Some(false) => None,
            Some(true) | None => Some(weights.tensor("linear.bias", &[outputs])?),
        };
        Ok(Self { weight, bias, activation })
    }
}

impl DenseActivation {
    /// The activation of a class of torch.nn, with its default arguments.
    fn from_torch(class: &str) -> Option<Self> {
        match class.strip_prefix("torch.nn.")?.rsplit('.').next()? {
            "Identity" => Some(Self::Identity),
            "Tanh" => Some(Self::Tanh),
            "ReLU" => Some(Self::Relu),
            "GELU" => Some(Self::Gelu),
            "Sigmoid" => Some(Self::Sigmoid),
            "SiLU" => Some(Self::Silu),
            _ => None,
        }
    }
}

/// A Normalize module has no file of its own, or one that names the features it reads and writes.
fn check_normalize(folder: &Path) -> Result<(), CheckpointError> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        module_input_name: Option<String>,
        module_output_name: Option<String>,
    }

    let path = folder.join("config.json");
    let config: Config = read_json_if_present(&path)?.unwrap_or_default();
    check_feature(&path, "module_input_name", config.module_input_name)?;
    check_feature(&path, "module_output_name", config.module_output_name)
}

fn check_feature(path: &Path, field: &str, name: Option<String>) -> Result<(), CheckpointError> {
    match name {
        Some(name) if name != SENTENCE_EMBEDDING => Err(CheckpointError::config(
            path,
            format!("{field} `{name}` is not supported, only `{SENTENCE_EMBEDDING}`"),
        )),
        _ => Ok(()),
    }
}
