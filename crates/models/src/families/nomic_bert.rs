//! NomicBERT: BERT's layers with rotary positions, gated feed-forward blocks and no biases.
//!
//! Nussbaum et al. 2024, arXiv:2402.01613; `NomicBertModel` of the checkpoints' own code, whose configuration has the names of
//! GPT-2's. nomic-embed-text v1 and v1.5 are this family.

use centuple_graph::{Activation, NodeId};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, PostNorm, Rotary, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("nomic_bert", "NomicBert")],
    base: "Model",
    brings_code: true,
    prefix: "bert.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `NomicBertConfig` that change the numbers, with the defaults of its code.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    pad_vocab_size_multiple: usize,
    n_embd: usize,
    n_head: usize,
    num_heads_kv: Option<usize>,
    n_layer: usize,
    n_inner: Option<usize>,
    n_positions: usize,
    type_vocab_size: usize,
    activation_function: String,
    layer_norm_epsilon: f32,
    rotary_emb_base: f64,
    rotary_emb_fraction: f64,
    rotary_emb_interleaved: bool,
    rotary_emb_scale_base: Option<f64>,
    rotary_scaling_factor: Option<f64>,
    qkv_proj_bias: bool,
    mlp_fc1_bias: bool,
    mlp_fc2_bias: bool,
    prenorm: bool,
    parallel_block: bool,
    causal: bool,
    use_rms_norm: Option<bool>,
    num_experts: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50257,
            pad_vocab_size_multiple: 1,
            n_embd: 768,
            n_head: 12,
            num_heads_kv: None,
            n_layer: 12,
            n_inner: None,
            n_positions: 1024,
            type_vocab_size: 2,
            activation_function: "gelu_new".to_owned(),
            layer_norm_epsilon: 1e-5,
            rotary_emb_base: 10_000.0,
            rotary_emb_fraction: 0.0,
            rotary_emb_interleaved: false,
            rotary_emb_scale_base: None,
            rotary_scaling_factor: None,
            qkv_proj_bias: true,
            mlp_fc1_bias: true,
            mlp_fc2_bias: true,
            prenorm: false,
            parallel_block: false,
            causal: false,
            use_rms_norm: None,
            num_experts: 0,
        }
    }
}

impl Config {
    /// Rows of the table of words: a multiple of what the configuration says.
    fn vocabulary(&self) -> usize {
        let padded = self.vocab_size.checked_next_multiple_of(self.pad_vocab_size_multiple);
        padded.unwrap_or(self.vocab_size)
    }
}

/// The configuration, the width of a head, and how many of its columns are rotated.
fn parse(json: Json) -> Result<(Config, usize, usize), ModelError> {
    let config: Config = json.parse()?;
    let scaled = config.rotary_scaling_factor.is_some();
    json.refuse(
        "rotary_scaling_factor",
        scaled,
        "angles that depend on the length are not; remove it for texts that fit",
    )?;
    json.refuse("rotary_emb_scale_base", config.rotary_emb_scale_base.is_some(), "decaying rotations are not")?;
    json.refuse("prenorm", config.prenorm, "only layers with the norm behind are")?;
    json.refuse("parallel_block", config.parallel_block, "only blocks one after the other are")?;
    json.refuse("causal", config.causal, "only encoders of this family are")?;
    json.refuse("use_rms_norm", config.use_rms_norm == Some(true), "only layer norms are")?;
    json.refuse("num_experts", config.num_experts > 0, "mixtures of experts are not")?;
    let few = config.num_heads_kv.is_some_and(|heads| heads != config.n_head);
    json.refuse("num_heads_kv", few, "only as many as `n_head` are")?;
    json.rotary_base("rotary_emb_base", config.rotary_emb_base)?;
    json.epsilon("layer_norm_epsilon", config.layer_norm_epsilon)?;
    let head_dim = json.head_dim(("n_embd", config.n_embd), ("n_head", config.n_head))?;
    json.at_most("n_positions", config.n_positions, Rotary::most_positions(head_dim))?;
    let rotated = (head_dim as f64 * config.rotary_emb_fraction) as usize;
    if rotated == 0 || rotated > head_dim || rotated % 2 == 1 {
        let fraction = config.rotary_emb_fraction;
        return Err(
            json.error(format!("`rotary_emb_fraction`: {fraction} of {head_dim} columns are not pairs of them"))
        );
    }
    Ok((config, head_dim, rotated))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocabulary(),
        type_vocabulary: config.type_vocab_size,
        width: config.n_embd,
        layers: config.n_layer,
        max_tokens: config.n_positions,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, head_dim, rotated) = parse(json)?;
    let width = config.n_embd;
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embeddings.word_embeddings"), rows: config.vocabulary(), ids };
    let mut others = Vec::new();
    if config.type_vocab_size > 0 {
        let name = builder.base("embeddings.token_type_embeddings");
        others.push(Table { name, rows: config.type_vocab_size, ids: builder.ids("token_type_ids")? });
    }
    let x = embeddings(builder, width, words, others)?;
    let mut x = builder.layer_norm(x, &builder.base("emb_ln"), width, config.layer_norm_epsilon)?;
    let mut rotary = Rotary::new(builder, "rotary", config.n_positions, rotated, config.rotary_emb_base)?;
    rotary.interleaved = config.rotary_emb_interleaved;
    for layer in 0..config.n_layer {
        let name = |part: &str| builder.base(&format!("encoder.layers.{layer}.{part}"));
        let [attention, fused, output] = ["attn", "attn.Wqkv", "attn.out_proj"].map(name);
        let [attended, norm] = ["norm1", "norm2"].map(name);
        let feed_forward = feed_forward(&config, json, name)?;
        let parts = ["query", "key", "value"];
        let rows = [0, 1, 2].map(|part| (parts[part], (part * width..(part + 1) * width).collect()));
        builder.split(&fused, [3 * width, width], config.qkv_proj_bias, &rows)?;
        let [query, key, value] = parts.map(|part| format!("{fused}.{part}"));
        let projections = [query, key, value, output];
        let attention = SelfAttention {
            biases: [config.qkv_proj_bias; 2],
            rotary: Some(rotary.clone()),
            ..SelfAttention::new(attention, projections, width, config.n_head, head_dim)
        };
        let layer = PostNorm { attention, attended, feed_forward, norm, epsilon: config.layer_norm_epsilon };
        x = layer.build(builder, x)?;
    }
    Ok(x)
}

fn feed_forward(config: &Config, json: Json, name: impl Fn(&str) -> String) -> Result<FeedForward, ModelError> {
    let gated = match config.activation_function.as_str() {
        "swiglu" => Some(Activation::Silu),
        "geglu" => Some(Activation::Gelu),
        "glu" => Some(Activation::Sigmoid),
        _ => None,
    };
    let activation = match gated {
        Some(activation) => activation,
        None => json.activation("activation_function", &config.activation_function)?,
    };
    // The matrix that is activated is the second one.
    let [up, gate] =
        if gated.is_some() { [name("mlp.fc12"), name("mlp.fc11")] } else { [name("mlp.fc1"), String::new()] };
    Ok(FeedForward {
        up,
        gate: gated.map(|_| gate),
        down: name("mlp.fc2"),
        width: config.n_embd,
        inner_width: config.n_inner.unwrap_or(config.n_embd.saturating_mul(4)),
        activation,
        biases: [config.mlp_fc1_bias, config.mlp_fc2_bias],
    })
}

/// The published checkpoints have none.
fn heads(_: Json, _: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    Ok(Vec::new())
}
