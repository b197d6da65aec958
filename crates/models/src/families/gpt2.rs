//! GPT-2: pre-norm decoder layers with learned positions.
//!
//! Radford et al. 2019; `GPT2Model` of transformers. Matrices are stored as `[inputs, outputs]`, and those of queries, keys and
//! values as one.

use centuple_graph::{NodeId, Op};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("gpt2", "GPT2")],
    base: "Model",
    brings_code: false,
    prefix: "transformer.",
    probe: "wte.weight",
    dimensions,
    build,
    heads,
};

/// Widest layer that is taken apart.
const WIDEST: usize = 1 << 16;

/// The fields of `GPT2Config` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    activation_function: String,
    layer_norm_epsilon: f32,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    add_cross_attention: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".to_owned(),
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            add_cross_attention: false,
        }
    }
}

fn parse(json: Json) -> Result<(Config, usize), ModelError> {
    let config: Config = json.parse()?;
    json.refuse("add_cross_attention", config.add_cross_attention, "only decoders without an encoder are")?;
    json.at_most("n_embd", config.n_embd, WIDEST)?;
    json.epsilon("layer_norm_epsilon", config.layer_norm_epsilon)?;
    let head_dim = json.head_dim(("n_embd", config.n_embd), ("n_head", config.n_head))?;
    Ok((config, head_dim))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.n_embd,
        layers: config.n_layer,
        max_tokens: config.n_positions,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, head_dim) = parse(json)?;
    let activation = json.activation("activation_function", &config.activation_function)?;
    let (width, epsilon) = (config.n_embd, config.layer_norm_epsilon);
    let inner_width = config.n_inner.unwrap_or(4 * width);
    let ids = builder.ids("input_ids")?;
    let positions = builder.graph.push("position_ids", Op::Positions { offset: 0, padding: None }, &[])?;
    let words = Table { name: builder.base("wte"), rows: config.vocab_size, ids };
    let places = Table { name: builder.base("wpe"), rows: config.n_positions, ids: positions };
    let mut x = embeddings(builder, width, words, vec![places])?;
    for layer in 0..config.n_layer {
        let name = |part: &str| builder.base(&format!("h.{layer}.{part}"));
        let [before, attention, fused, output] = ["ln_1", "attn", "attn.c_attn", "attn.c_proj"].map(name);
        let [between, up, down] = ["ln_2", "mlp.c_fc", "mlp.c_proj"].map(name);
        builder.transpose(&fused, [3 * width, width])?;
        builder.transpose(&output, [width, width])?;
        builder.transpose(&up, [inner_width, width])?;
        builder.transpose(&down, [width, inner_width])?;
        let parts = ["query", "key", "value"];
        let rows = [0, 1, 2].map(|part| (parts[part], (part * width..(part + 1) * width).collect()));
        builder.split(&fused, [3 * width, width], true, &rows)?;
        let [query, key, value] = parts.map(|part| format!("{fused}.{part}"));
        let attention = SelfAttention::new(attention, [query, key, value, output], width, config.n_head, head_dim);
        let scale = if config.scale_attn_weights { attention.scale } else { 1.0 };
        let depth = if config.scale_attn_by_inverse_layer_idx { (layer + 1) as f32 } else { 1.0 };
        let attention = SelfAttention { scale: scale / depth, causal: true, cache: builder.cache(layer), ..attention };
        let feed_forward = FeedForward { up, gate: None, down, width, inner_width, activation, biases: [true, true] };
        let normed = builder.layer_norm(x, &before, width, epsilon)?;
        let context = attention.build(builder, normed)?;
        x = builder.add(&format!("{}.residual", attention.name), x, context)?;
        let normed = builder.layer_norm(x, &between, width, epsilon)?;
        let fed = feed_forward.build(builder, normed)?;
        x = builder.add(&format!("{}.residual", feed_forward.down), x, fed)?;
    }
    builder.layer_norm(x, &builder.base("ln_f"), width, epsilon)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, _) = parse(json)?;
    let weight = if config.tie_word_embeddings { builder.base("wte.weight") } else { "lm_head.weight".to_owned() };
    Ok(vec![HeadLayers { class: "LMHeadModel", ..HeadLayers::next_token(weight) }])
}
