//! BART: an encoder and a decoder.
//!
//! Lewis et al. 2019, arXiv:1910.13461; `BartModel` of transformers. Its layers are post-norm. `MBartModel` (Liu et al. 2020,
//! arXiv:2001.08210) has pre-norm layers with a norm behind the last one. Where a class reads a text and doesn't write one, the
//! decoder reads the same tokens one later, MBART's the last one first, and the hidden state is the decoder's: BART's end
//! token's last state classifies.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Memory, Order, Stack, UNTIED, most_places};
use crate::builder::{Builder, Part};
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("bart", "Bart"), ("mbart", "MBart")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "encoder.layernorm_embedding.weight",
    dimensions,
    build,
    heads,
};

/// The row of the first token's position.
const FIRST_PLACE: usize = 2;
/// Name of what is added to the logits of new tokens, `[1, vocabulary]`.
const LOGITS_BIAS: &str = "final_logits_bias";

/// The fields of `BartConfig` and `MBartConfig` that change the numbers, with their defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    activation_function: String,
    max_position_embeddings: usize,
    scale_embedding: bool,
    eos_token_id: i64,
    decoder_start_token_id: i64,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50265,
            d_model: 1024,
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_layers: 12,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            activation_function: "gelu".to_owned(),
            max_position_embeddings: 1024,
            scale_embedding: false,
            eos_token_id: 2,
            decoder_start_token_id: 2,
            tie_word_embeddings: true,
        }
    }
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let config: Config = json.parse()?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.d_model,
        layers: config.encoder_layers.saturating_add(config.decoder_layers),
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config: Config = json.parse()?;
    let order = if json.model_type()? == "mbart" { Order::Pre } else { Order::Post };
    let untied = builder.part() != Part::Whole && !config.tie_word_embeddings;
    json.refuse("tie_word_embeddings", untied, UNTIED)?;
    let [encoder, decoder] = stacks(&config, json, order, builder)?;
    if builder.shape(LOGITS_BIAS).is_some() {
        builder.flatten(LOGITS_BIAS, config.vocab_size)?;
    }
    if let Some(part) = encoder.part(&decoder, builder)? {
        return Ok(part);
    }
    let ids = builder.ids("input_ids")?;
    let first = match order {
        Order::Post => Some(start(&config, json)?),
        Order::Pre => None,
    };
    let shifted = builder.graph.push("decoder_input_ids", Op::ShiftRight { first }, &[ids])?;
    let memory = encoder.build(builder, ids, Memory::Nothing)?;
    decoder.build(builder, shifted, Memory::Values(memory))
}

fn stacks(config: &Config, json: Json, order: Order, builder: &Builder) -> Result<[Stack; 2], ModelError> {
    let width = ("d_model", config.d_model);
    let places =
        json.at_most("max_position_embeddings", config.max_position_embeddings, most_places(config.d_model))?;
    let encoder = Stack {
        name: builder.base("encoder"),
        words: (words(builder), config.vocab_size),
        word_scale: config.scale_embedding.then(|| (config.d_model as f64).sqrt() as f32),
        places: places + FIRST_PLACE,
        first_place: FIRST_PLACE,
        width: config.d_model,
        layers: config.encoder_layers,
        heads: config.encoder_attention_heads,
        head_dim: json.head_dim(width, ("encoder_attention_heads", config.encoder_attention_heads))?,
        inner_width: config.encoder_ffn_dim,
        activation: json.activation("activation_function", &config.activation_function)?,
        order,
        end_norms: [true, order == Order::Pre],
    };
    let decoder = Stack {
        name: builder.base("decoder"),
        layers: config.decoder_layers,
        heads: config.decoder_attention_heads,
        head_dim: json.head_dim(width, ("decoder_attention_heads", config.decoder_attention_heads))?,
        inner_width: config.decoder_ffn_dim,
        ..encoder.clone()
    };
    Ok([encoder, decoder])
}

/// The decoder's first token.
fn start(config: &Config, json: Json) -> Result<i64, ModelError> {
    let start = config.decoder_start_token_id;
    match usize::try_from(start) {
        Ok(known) if known < config.vocab_size => Ok(start),
        _ => Err(json.error(format!("`decoder_start_token_id`: {start} is not a token id"))),
    }
}

/// The name of the table of words, without `.weight`.
fn words(builder: &Builder) -> String {
    let names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
    builder.first_of(&names.map(|name| builder.base(name)))
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let config: Config = json.parse()?;
    let layers = vec![Layer::Linear("classification_head.dense".to_owned()), Layer::Activation(Activation::Tanh)];
    let pooling = Pooling::LastEqual(config.eos_token_id);
    let tokens = words(builder);
    Ok(vec![
        HeadLayers::sequence(pooling, layers, "classification_head.out_proj"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::written("ForConditionalGeneration", format!("{tokens}.weight"), &[LOGITS_BIAS]),
    ])
}
