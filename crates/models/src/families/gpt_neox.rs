//! GPT-NeoX: pre-norm decoder layers whose attention and feed-forward block stand beside each other, with rotary positions.
//!
//! Black et al. 2022, arXiv:2204.06745; `GPTNeoXModel` of transformers. Pythia is this family. The projections of queries, keys
//! and values are one matrix, head by head.

use centuple_graph::NodeId;
use serde::Deserialize;
use serde_json::Value;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Base, FeedForward, Frequencies, Rotary, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("gpt_neox", "GPTNeoX")],
    base: "Model",
    brings_code: false,
    prefix: "gpt_neox.",
    probe: "embed_in.weight",
    dimensions,
    build,
    heads,
};

/// Widest layer that is taken apart.
const WIDEST: usize = 1 << 16;

/// The fields of `GPTNeoXConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    rotary_pct: f64,
    rotary_emb_base: f64,
    rope_scaling: Option<Value>,
    max_position_embeddings: usize,
    layer_norm_eps: f32,
    tie_word_embeddings: bool,
    use_parallel_residual: bool,
    attention_bias: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50432,
            hidden_size: 6144,
            num_hidden_layers: 44,
            num_attention_heads: 64,
            intermediate_size: 24576,
            hidden_act: "gelu".to_owned(),
            rotary_pct: 0.25,
            rotary_emb_base: 10_000.0,
            rope_scaling: None,
            max_position_embeddings: 2048,
            layer_norm_eps: 1e-5,
            tie_word_embeddings: false,
            use_parallel_residual: true,
            attention_bias: true,
        }
    }
}

/// The configuration, the width of a head, and the frequencies of its rotation.
fn parse(json: Json) -> Result<(Config, usize, Frequencies), ModelError> {
    let config: Config = json.parse()?;
    json.at_most("hidden_size", config.hidden_size, WIDEST)?;
    json.epsilon("layer_norm_eps", config.layer_norm_eps)?;
    let [width, heads] = [("hidden_size", config.hidden_size), ("num_attention_heads", config.num_attention_heads)];
    let head_dim = json.head_dim(width, heads)?;
    let columns = (head_dim as f64 * config.rotary_pct) as usize;
    if columns == 0 || columns > head_dim || columns % 2 == 1 {
        let part = config.rotary_pct;
        return Err(json.error(format!("`rotary_pct`: {part} of {head_dim} columns are not pairs of them")));
    }
    let most = Rotary::most_positions(columns);
    let positions = json.at_most("max_position_embeddings", config.max_position_embeddings, most)?;
    let theta = json.rotary_base("rotary_emb_base", config.rotary_emb_base)?;
    let frequencies = Base { columns, theta, positions }.scaled(json, config.rope_scaling.as_ref())?;
    Ok((config, head_dim, frequencies))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _, frequencies) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: frequencies.positions,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, head_dim, frequencies) = parse(json)?;
    let activation = json.activation("hidden_act", &config.hidden_act)?;
    let (width, heads, epsilon) = (config.hidden_size, config.num_attention_heads, config.layer_norm_eps);
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embed_in"), rows: config.vocab_size, ids };
    let mut x = embeddings(builder, width, words, Vec::new())?;
    let rotary = Rotary::with(builder, "rotary", &frequencies)?;
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| builder.base(&format!("layers.{layer}.{part}"));
        let [attention, fused, output] =
            ["", ".query_key_value", ".dense"].map(|part| name(&format!("attention{part}")));
        let [up, down] = ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"].map(name);
        let [before, between] = ["input_layernorm", "post_attention_layernorm"].map(name);
        let parts = ["query", "key", "value"];
        let rows = [0, 1, 2].map(|part| {
            let of_head = move |head: usize| (3 * head + part) * head_dim..(3 * head + part + 1) * head_dim;
            (parts[part], (0..heads).flat_map(of_head).collect())
        });
        builder.split(&fused, [3 * width, width], config.attention_bias, &rows)?;
        let [query, key, value] = parts.map(|part| format!("{fused}.{part}"));
        let attention = SelfAttention {
            biases: [config.attention_bias; 2],
            causal: true,
            rotary: Some(rotary.clone()),
            cache: builder.cache(layer),
            ..SelfAttention::new(attention, [query, key, value, output], width, heads, head_dim)
        };
        let inner_width = config.intermediate_size;
        let feed_forward = FeedForward { up, gate: None, down, width, inner_width, activation, biases: [true, true] };
        let normed = builder.layer_norm(x, &before, width, epsilon)?;
        let context = attention.build(builder, normed)?;
        let attended = builder.add(&format!("{}.residual", attention.name), x, context)?;
        let source = if config.use_parallel_residual { x } else { attended };
        let normed = builder.layer_norm(source, &between, width, epsilon)?;
        let fed = feed_forward.build(builder, normed)?;
        x = builder.add(&format!("{}.residual", feed_forward.down), attended, fed)?;
    }
    builder.layer_norm(x, &builder.base("final_layer_norm"), width, epsilon)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, _, _) = parse(json)?;
    let words = builder.base("embed_in.weight");
    Ok(vec![HeadLayers::next_token(if config.tie_word_embeddings { words } else { "embed_out.weight".to_owned() })])
}
