//! Marian: an encoder and a decoder that translate, with post-norm layers and positions as sines.
//!
//! Junczys-Dowmunt et al. 2018, arXiv:1804.00344; `MarianMTModel` of transformers, which OPUS-MT's models are.

use centuple_graph::NodeId;
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Order, Stack, UNTIED, most_places};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("marian", "Marian")],
    base: "",
    brings_code: false,
    prefix: "model.",
    probe: "encoder.layers.0.self_attn.q_proj.weight",
    dimensions,
    build,
    heads,
};

/// Name of what is added to the logits of new tokens, `[1, vocabulary]`.
const LOGITS_BIAS: &str = "final_logits_bias";
/// Pairs of columns turn at speeds from 1 down to one over this.
const SLOWEST: f64 = 10000.0;

/// The fields of `MarianConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    decoder_vocab_size: Option<usize>,
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
    share_encoder_decoder_embeddings: bool,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 58101,
            decoder_vocab_size: None,
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
            share_encoder_decoder_embeddings: true,
            tie_word_embeddings: true,
        }
    }
}

fn parse(json: Json) -> Result<Config, ModelError> {
    let config: Config = json.parse()?;
    json.refuse("tie_word_embeddings", !config.tie_word_embeddings, UNTIED)?;
    let other = config.decoder_vocab_size.is_some_and(|size| size != config.vocab_size);
    json.refuse("decoder_vocab_size", other, "only that of the encoder is")?;
    Ok(config)
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let config = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.d_model,
        layers: config.encoder_layers.saturating_add(config.decoder_layers),
        max_tokens: json.at_most(
            "max_position_embeddings",
            config.max_position_embeddings,
            most_places(config.d_model),
        )?,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config = parse(json)?;
    let width = ("d_model", config.d_model);
    let encoder = Stack {
        name: builder.base("encoder"),
        words: (words(&config, builder, "encoder"), config.vocab_size),
        word_scale: config.scale_embedding.then(|| (config.d_model as f64).sqrt() as f32),
        places: json.at_most("max_position_embeddings", config.max_position_embeddings, most_places(config.d_model))?,
        first_place: 0,
        width: config.d_model,
        layers: config.encoder_layers,
        heads: config.encoder_attention_heads,
        head_dim: json.head_dim(width, ("encoder_attention_heads", config.encoder_attention_heads))?,
        inner_width: config.encoder_ffn_dim,
        activation: json.activation("activation_function", &config.activation_function)?,
        order: Order::Post,
        end_norms: [false, false],
    };
    let decoder = Stack {
        name: builder.base("decoder"),
        words: (words(&config, builder, "decoder"), config.vocab_size),
        layers: config.decoder_layers,
        heads: config.decoder_attention_heads,
        head_dim: json.head_dim(width, ("decoder_attention_heads", config.decoder_attention_heads))?,
        inner_width: config.decoder_ffn_dim,
        ..encoder.clone()
    };
    for stack in [&encoder, &decoder] {
        // Old checkpoints have the table.
        if builder.shape(&format!("{}.embed_positions.weight", stack.name)).is_none() {
            let pairs = config.d_model as f64 / 2.0;
            stack.sinusoids(builder, |position, pair| position as f64 / SLOWEST.powf(pair as f64 / pairs))?;
        }
    }
    if builder.shape(LOGITS_BIAS).is_some() {
        builder.flatten(LOGITS_BIAS, config.vocab_size)?;
    }
    let part = encoder.part(&decoder, builder)?;
    part.ok_or_else(|| json.error("Marian's models translate; only \"MarianMTModel\" is supported"))
}

/// The name of a stack's table of words, without `.weight`.
fn words(config: &Config, builder: &Builder, stack: &str) -> String {
    let own = builder.base(&format!("{stack}.embed_tokens"));
    if !config.share_encoder_decoder_embeddings {
        return own;
    }
    let names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
    builder.first_of(&names.map(|name| builder.base(name)))
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let config = parse(json)?;
    let tokens = words(&config, builder, "decoder");
    Ok(vec![HeadLayers::written("MTModel", format!("{tokens}.weight"), &[LOGITS_BIAS])])
}
