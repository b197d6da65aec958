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
    pub(super) pooling: Pooling,
    pub(super) head: Vec<HeadModule>,
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
             Normalize are",
            classes.join(", ")
        );
        CheckpointError::config(path, reason)
    };
    let [transformer, pooling, rest @ ..] = entries.as_slice() else { return Err(unsupported()) };
    if transformer.kind() != Some("Transformer") || pooling.kind() != Some("Pooling") {
        return Err(unsupported());
    }
    let transformer = place(transformer)?;
    let pooling = Pooling::open(&place(pooling)?)?;
    let mut head = Vec::with_capacity(rest.len());
    let mut width = pooling.output_dimension();
    for entry in rest {
        match entry.kind() {
            Some("Dense") => {
                let dense = Dense::open(&place(entry)?, width)?;
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
    Ok(Modules { transformer, pooling, head })
}

impl Entry {
    /// The class name of one of the library's own modules, whose packages have moved between versions.
    fn kind(&self) -> Option<&str> {
        self.class.strip_prefix("sentence_transformers.")?.rsplit('.').next()
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

    /// Reads a Dense module whose input is `width` wide.
    fn open(folder: &Path, width: usize) -> Result<Self, CheckpointError> {
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
        if config.in_features != width {
            let found = config.in_features;
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
