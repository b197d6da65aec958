//! Llama and its kin: pre-norm decoders with rotary positions, gated feed-forward blocks and few heads of keys and values.
//!
//! Touvron et al. 2023, arXiv:2302.13971; `LlamaModel` of transformers. Mistral has a window and no biases, Qwen2 biases of
//! queries, keys and values, Qwen3 norms of their heads; both may have a window in some layers.

use centuple_graph::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Base, FeedForward, Frequencies, HeadNorms, Heads, Rotary, SelfAttention, Table, embeddings};
use crate::builder::{Builder, Gamma};
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "embed_tokens.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `LlamaConfig` and its kin that change the numbers; the defaults that they share.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: String,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    tie_word_embeddings: bool,
    rope_theta: f64,
    rope_scaling: Option<Value>,
    partial_rotary_factor: Option<f64>,
    attention_bias: bool,
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: bool,
    max_window_layers: usize,
    layer_types: Option<Vec<String>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".to_owned(),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            rope_theta: 10_000.0,
            rope_scaling: None,
            partial_rotary_factor: None,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: None,
            use_sliding_window: false,
            max_window_layers: 28,
            layer_types: None,
        }
    }
}

/// A configuration, and what follows from it.
struct Llama {
    config: Config,
    heads: Heads,
    frequencies: Frequencies,
    epsilon: f32,
    /// Whether queries, keys and values, and the output of attention, have biases.
    attention_biases: [bool; 2],
    mlp_bias: bool,
    /// Whether the heads of queries and keys are normed.
    norms: bool,
}

/// Defaults of a model type where they differ.
fn defaults(model_type: &str) -> Value {
    match model_type {
        "mistral" => json!({
            "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096,
        }),
        "qwen2" | "qwen3" => {
            let head_dim = if model_type == "qwen3" { json!(128) } else { Value::Null };
            json!({
                "vocab_size": 151_936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": head_dim,
                "max_position_embeddings": 32768, "sliding_window": 4096,
            })
        }
        _ => json!({}),
    }
}

fn parse(json: Json) -> Result<Llama, ModelError> {
    let model_type = json.model_type()?;
    let value = json.with_defaults(&defaults(model_type));
    let mut config: Config = Json { value: &value, path: json.path }.parse()?;
    let sizes = [config.hidden_size, config.num_attention_heads];
    let heads = Heads::of(json, sizes, config.num_key_value_heads, config.head_dim)?;
    let partial = config.partial_rotary_factor.is_some_and(|factor| factor != 1.0);
    json.refuse("partial_rotary_factor", partial, "heads are rotated as a whole")?;
    let positions = json.at_most(
        "max_position_embeddings",
        config.max_position_embeddings,
        Rotary::most_positions(heads.head_dim),
    )?;
    let theta = json.rotary_base("rope_theta", config.rope_theta)?;
    let base = Base { columns: heads.head_dim, theta, positions };
    let frequencies = base.scaled(json, config.rope_scaling.as_ref())?;
    let epsilon = json.epsilon("rms_norm_eps", config.rms_norm_eps)?;
    let qwen = matches!(model_type, "qwen2" | "qwen3");
    let (attention_biases, mlp_bias) = match model_type {
        "mistral" => ([false, false], false),
        "qwen2" => ([true, false], false),
        "qwen3" => ([config.attention_bias; 2], false),
        _ => ([config.attention_bias; 2], config.mlp_bias),
    };
    if !qwen {
        json.refuse("layer_types", config.layer_types.is_some(), "all layers of this family are of one kind")?;
    }
    if model_type == "llama" {
        json.refuse(
            "sliding_window",
            config.sliding_window.is_some(),
            "Llama sees the whole text; Mistral has windows",
        )?;
    } else if qwen && !config.use_sliding_window {
        config.sliding_window = None;
    }
    if config.sliding_window == Some(0) {
        return Err(json.error("`sliding_window` is 0; each token sees at least itself"));
    }
    let norms = model_type == "qwen3";
    let llama = Llama { config, heads, frequencies, epsilon, attention_biases, mlp_bias, norms };
    (0..llama.config.layer_types.as_ref().map_or(0, Vec::len))
        .try_for_each(|layer| llama.window(json, layer).map(drop))?;
    Ok(llama)
}

impl Llama {
    /// How many positions a layer sees before its own.
    fn window(&self, json: Json, layer: usize) -> Result<Option<usize>, ModelError> {
        let Config { sliding_window, max_window_layers, layer_types, .. } = &self.config;
        let of_kind = |kind: &str| json.windowed("layer_types", kind);
        let windowed = match layer_types {
            Some(kinds) => match kinds.get(layer) {
                Some(kind) => of_kind(kind)?,
                None => return Err(json.error(format!("`layer_types` has {} entries", kinds.len()))),
            },
            None => !matches!(json.model_type()?, "qwen2" | "qwen3") || layer >= *max_window_layers,
        };
        match sliding_window {
            Some(_) if !windowed => Ok(None),
            Some(window) => Ok(Some(window.saturating_sub(1))),
            None if layer_types.is_some() && windowed => {
                Err(json.error("`layer_types`: \"sliding_attention\" needs `sliding_window` and `use_sliding_window`"))
            }
            None => Ok(None),
        }
    }
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let llama = parse(json)?;
    Ok(Dimensions {
        vocabulary: llama.config.vocab_size,
        type_vocabulary: 0,
        width: llama.config.hidden_size,
        layers: llama.config.num_hidden_layers,
        max_tokens: llama.frequencies.positions,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let llama = parse(json)?;
    let (config, width, epsilon) = (&llama.config, llama.config.hidden_size, llama.epsilon);
    let activation = json.activation("hidden_act", &config.hidden_act)?;
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embed_tokens"), rows: config.vocab_size, ids };
    let mut x = embeddings(builder, width, words, Vec::new())?;
    let rotary = Rotary::with(builder, "rotary", &llama.frequencies)?;
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| builder.base(&format!("layers.{layer}.{part}"));
        let Heads { heads, kv_heads, head_dim } = llama.heads;
        let projections = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|part| name(&format!("self_attn.{part}")));
        let names = ["q_norm", "k_norm"].map(|part| name(&format!("self_attn.{part}")));
        let attention = SelfAttention {
            kv_heads,
            biases: llama.attention_biases,
            causal: true,
            window: llama.window(json, layer)?,
            norms: llama.norms.then_some(HeadNorms { names, gamma: Gamma::Plain, epsilon }),
            rotary: Some(rotary.clone()),
            cache: builder.cache(layer),
            ..SelfAttention::new(name("self_attn"), projections, width, heads, head_dim)
        };
        let feed_forward = FeedForward {
            up: name("mlp.gate_proj"),
            gate: Some(name("mlp.up_proj")),
            down: name("mlp.down_proj"),
            width,
            inner_width: config.intermediate_size,
            activation,
            biases: [llama.mlp_bias; 2],
        };
        let [attention_norm, mlp_norm] = ["input_layernorm", "post_attention_layernorm"].map(name);
        let normed = builder.rms_norm(x, &attention_norm, width, epsilon)?;
        let context = attention.build(builder, normed)?;
        x = builder.add(&format!("{}.residual", attention.name), x, context)?;
        let normed = builder.rms_norm(x, &mlp_norm, width, epsilon)?;
        let fed = feed_forward.build(builder, normed)?;
        x = builder.add(&format!("{mlp_norm}.residual"), x, fed)?;
    }
    builder.rms_norm(x, &builder.base("norm"), width, epsilon)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let words = builder.base("embed_tokens.weight");
    Ok(vec![HeadLayers::next_token(if parse(json)?.config.tie_word_embeddings {
        words
    } else {
        "lm_head.weight".into()
    })])
}
