//! Gemma: Llama's layers with scaled embeddings and norms whose scales are stored less one.
//!
//! Gemma Team 2024, arXiv:2403.08295; `GemmaModel` of transformers. Gemma 2 (arXiv:2408.00118) norms the outputs of blocks as
//! well, bounds scores and logits, and gives every other layer a window. Gemma 3 (arXiv:2503.19786) norms the heads of queries
//! and keys instead of bounding scores; its layers with a window rotate by a base of their own.

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
    names: &[("gemma", "Gemma"), ("gemma2", "Gemma2")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "embed_tokens.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `GemmaConfig` and those after it that change the numbers; the defaults that they share.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_act: String,
    hidden_activation: String,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    tie_word_embeddings: bool,
    rope_theta: f64,
    rope_local_base_freq: f64,
    rope_scaling: Option<Value>,
    partial_rotary_factor: Option<f64>,
    attention_bias: bool,
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<String>>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    use_bidirectional_attention: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 256_000,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_act: "gelu_pytorch_tanh".to_owned(),
            hidden_activation: "gelu_pytorch_tanh".to_owned(),
            max_position_embeddings: 8192,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            rope_theta: 10_000.0,
            rope_local_base_freq: 10_000.0,
            rope_scaling: None,
            partial_rotary_factor: None,
            attention_bias: false,
            query_pre_attn_scalar: 256.0,
            sliding_window: 4096,
            sliding_window_pattern: 6,
            layer_types: None,
            attn_logit_softcapping: None,
            final_logit_softcapping: None,
            use_bidirectional_attention: false,
        }
    }
}

/// Which of the three it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    First,
    Second,
    Third,
}

/// A configuration, and what follows from it.
struct Gemma {
    config: Config,
    generation: Generation,
    heads: Heads,
    epsilon: f32,
    /// Frequencies of layers that see everything, and of those with a window.
    frequencies: [Frequencies; 2],
}

fn parse(json: Json) -> Result<Gemma, ModelError> {
    let (generation, defaults) = match json.model_type()? {
        "gemma" => (
            Generation::First,
            json!({
                "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28, "num_attention_heads": 16,
                "num_key_value_heads": 16,
            }),
        ),
        "gemma2" => (Generation::Second, json!({"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0})),
        _ => (
            Generation::Third,
            json!({"vocab_size": 262_208, "max_position_embeddings": 131_072, "rope_theta": 1_000_000.0}),
        ),
    };
    let value = json.with_defaults(&defaults);
    let config: Config = Json { value: &value, path: json.path }.parse()?;
    let sizes = [config.hidden_size, config.num_attention_heads];
    let heads = Heads::of(json, sizes, Some(config.num_key_value_heads), Some(config.head_dim))?;
    let partial = config.partial_rotary_factor.is_some_and(|factor| factor != 1.0);
    json.refuse("partial_rotary_factor", partial, "heads are rotated as a whole")?;
    let most = Rotary::most_positions(heads.head_dim);
    let positions = json.at_most("max_position_embeddings", config.max_position_embeddings, most)?;
    let theta = json.rotary_base("rope_theta", config.rope_theta)?;
    let base = Base { columns: heads.head_dim, theta, positions };
    let global = base.scaled(json, config.rope_scaling.as_ref())?;
    let local = if generation == Generation::Third {
        let theta = json.rotary_base("rope_local_base_freq", config.rope_local_base_freq)?;
        Base { theta, positions: global.positions, ..base }.unscaled()
    } else {
        global.clone()
    };
    let caps = [
        ("attn_logit_softcapping", config.attn_logit_softcapping),
        ("final_logit_softcapping", config.final_logit_softcapping),
    ];
    for (field, cap) in caps {
        if cap.is_some_and(|cap| !(cap > 0.0 && cap.is_finite())) {
            return Err(json.error(format!("`{field}` is not a positive number")));
        }
    }
    if !(config.query_pre_attn_scalar > 0.0 && config.query_pre_attn_scalar.is_finite()) {
        return Err(json.error("`query_pre_attn_scalar` is not a positive number"));
    }
    if config.sliding_window == 0 || config.sliding_window_pattern == 0 {
        return Err(json.error("`sliding_window` and `sliding_window_pattern` are at least 1"));
    }
    let epsilon = json.epsilon("rms_norm_eps", config.rms_norm_eps)?;
    Ok(Gemma { config, generation, heads, epsilon, frequencies: [global, local] })
}

impl Gemma {
    /// Whether tokens see those after them, as in EmbeddingGemma.
    fn sees_both_sides(&self) -> bool {
        self.generation == Generation::Third && self.config.use_bidirectional_attention
    }

    /// Whether a layer has a window.
    fn is_windowed(&self, json: Json, layer: usize) -> Result<bool, ModelError> {
        let every = match self.generation {
            Generation::First => return Ok(false),
            Generation::Second => 2,
            Generation::Third => self.config.sliding_window_pattern,
        };
        match &self.config.layer_types {
            None => Ok(!(layer + 1).is_multiple_of(every)),
            Some(kinds) => match kinds.get(layer) {
                Some(kind) => json.windowed("layer_types", kind),
                None => Err(json.error(format!("`layer_types` has {} entries", kinds.len()))),
            },
        }
    }

    /// Appends a norm by the root mean square.
    fn norm(&self, builder: &mut Builder, x: NodeId, name: &str) -> Result<NodeId, ModelError> {
        builder.rms_norm_with(x, name, self.config.hidden_size, Gamma::Centred, self.epsilon)
    }

    fn attention(
        &self,
        json: Json,
        builder: &Builder,
        layer: usize,
        rotary: &[Rotary; 2],
    ) -> Result<SelfAttention, ModelError> {
        let name = |part: &str| builder.base(&format!("layers.{layer}.self_attn{part}"));
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let projections = [".q_proj", ".k_proj", ".v_proj", ".o_proj"].map(name);
        let attention = SelfAttention::new(name(""), projections, self.config.hidden_size, heads, head_dim);
        let windowed = self.is_windowed(json, layer)?;
        let first = self.generation == Generation::First;
        let third = self.generation == Generation::Third;
        let both_sides = self.sees_both_sides();
        // Either way a token counts as one of those that it sees.
        let window = if both_sides { self.config.sliding_window / 2 } else { self.config.sliding_window - 1 };
        let epsilon = self.epsilon;
        Ok(SelfAttention {
            kv_heads,
            scale: if first { attention.scale } else { self.config.query_pre_attn_scalar.powf(-0.5) as f32 },
            soft_cap: self.config.attn_logit_softcapping.filter(|_| self.generation == Generation::Second),
            biases: [self.config.attention_bias; 2],
            causal: !both_sides,
            window: windowed.then_some(window),
            norms: third.then(|| HeadNorms { names: [".q_norm", ".k_norm"].map(name), gamma: Gamma::Centred, epsilon }),
            rotary: Some(rotary[usize::from(windowed)].clone()),
            cache: builder.cache(layer),
            ..attention
        })
    }
}

pub(super) fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let gemma = parse(json)?;
    Ok(Dimensions {
        vocabulary: gemma.config.vocab_size,
        type_vocabulary: 0,
        width: gemma.config.hidden_size,
        layers: gemma.config.num_hidden_layers,
        max_tokens: gemma.frequencies[0].positions,
    })
}

pub(super) fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let gemma = parse(json)?;
    let (config, width) = (&gemma.config, gemma.config.hidden_size);
    let both_sides = gemma.sees_both_sides() && builder.cache(0).is_some();
    json.refuse("use_bidirectional_attention", both_sides, "a model that sees the next token doesn't tell it")?;
    let activation = match gemma.generation {
        Generation::First => json.activation("hidden_act", &config.hidden_act)?,
        Generation::Second | Generation::Third => json.activation("hidden_activation", &config.hidden_activation)?,
    };
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embed_tokens"), rows: config.vocab_size, ids };
    let x = embeddings(builder, width, words, Vec::new())?;
    let mut x = builder.scale(x, "embed_tokens.scaled", (width as f64).sqrt() as f32)?;
    let global = Rotary::with(builder, "global", &gemma.frequencies[0])?;
    let local = if gemma.generation == Generation::Third {
        Rotary::with(builder, "local", &gemma.frequencies[1])?
    } else {
        global.clone()
    };
    let rotary = [global, local];
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| builder.base(&format!("layers.{layer}.{part}"));
        let attention = gemma.attention(json, builder, layer, &rotary)?;
        let feed_forward = FeedForward {
            up: name("mlp.gate_proj"),
            gate: Some(name("mlp.up_proj")),
            down: name("mlp.down_proj"),
            width,
            inner_width: config.intermediate_size,
            activation,
            biases: [false, false],
        };
        let [before, attended, fed_from, fed] = ["input", "post_attention", "pre_feedforward", "post_feedforward"]
            .map(|part| name(&format!("{part}_layernorm")));
        let normed = gemma.norm(builder, x, &before)?;
        let mut context = attention.build(builder, normed)?;
        if gemma.generation != Generation::First {
            context = gemma.norm(builder, context, &attended)?;
        }
        x = builder.add(&format!("{attended}.residual"), x, context)?;
        let of_inner = if gemma.generation == Generation::First { &attended } else { &fed_from };
        let normed = gemma.norm(builder, x, of_inner)?;
        let mut inner = feed_forward.build(builder, normed)?;
        if gemma.generation != Generation::First {
            inner = gemma.norm(builder, inner, &fed)?;
        }
        x = builder.add(&format!("{fed}.residual"), x, inner)?;
    }
    gemma.norm(builder, x, &builder.base("norm"))
}

pub(super) fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let gemma = parse(json)?;
    let words = builder.base("embed_tokens.weight");
    let weight = if gemma.config.tie_word_embeddings { words } else { "lm_head.weight".to_owned() };
    let soft_cap = gemma.config.final_logit_softcapping.filter(|_| gemma.generation != Generation::First);
    Ok(vec![HeadLayers { soft_cap, ..HeadLayers::next_token(weight) }])
}
