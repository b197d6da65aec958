//! M2M100: an encoder and a decoder that translate between many languages, with pre-norm layers and positions as sines.
//!
//! Fan et al. 2020, arXiv:2010.11125; `M2M100ForConditionalGeneration` of transformers. NLLB (arXiv:2207.04672) is this family.

use centuple_graph::NodeId;
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Order, Stack, UNTIED, most_places};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("m2m_100", "M2M100")],
    base: "",
    brings_code: false,
    prefix: "model.",
    probe: "encoder.layer_norm.weight",
    dimensions,
    build,
    heads,
};

/// Pairs of columns turn at speeds from 1 down to one over this.
const SLOWEST: f64 = 10000.0;

/// The fields of `M2M100Config` that change the numbers, with its defaults.
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
    pad_token_id: usize,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 128_112,
            d_model: 1024,
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_layers: 12,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            activation_function: "relu".to_owned(),
            max_position_embeddings: 1024,
            scale_embedding: true,
            pad_token_id: 1,
            tie_word_embeddings: true,
        }
    }
}

fn parse(json: Json) -> Result<Config, ModelError> {
    let config: Config = json.parse()?;
    json.refuse("tie_word_embeddings", !config.tie_word_embeddings, UNTIED)?;
    json.at_most("pad_token_id", config.pad_token_id, config.vocab_size)?;
    json.refuse("d_model", config.d_model < 4 || !config.d_model.is_multiple_of(2), "only even widths from 4 on are")?;
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
    // Positions count from behind that of the padding.
    let first_place = config.pad_token_id + 1;
    let most = json.at_most("max_position_embeddings", config.max_position_embeddings, most_places(config.d_model))?;
    let encoder = Stack {
        name: builder.base("encoder"),
        words: (words(builder), config.vocab_size),
        word_scale: config.scale_embedding.then(|| (config.d_model as f64).sqrt() as f32),
        places: first_place + most,
        first_place,
        width: config.d_model,
        layers: config.encoder_layers,
        heads: config.encoder_attention_heads,
        head_dim: json.head_dim(width, ("encoder_attention_heads", config.encoder_attention_heads))?,
        inner_width: config.encoder_ffn_dim,
        activation: json.activation("activation_function", &config.activation_function)?,
        order: Order::Pre,
        end_norms: [false, true],
    };
    let decoder = Stack {
        name: builder.base("decoder"),
        layers: config.decoder_layers,
        heads: config.decoder_attention_heads,
        head_dim: json.head_dim(width, ("decoder_attention_heads", config.decoder_attention_heads))?,
        inner_width: config.decoder_ffn_dim,
        ..encoder.clone()
    };
    // Angles are rounded to f32, as transformers computes them.
    let step = (SLOWEST.ln() / (config.d_model as f64 / 2.0 - 1.0)) as f32;
    let angle = |position: usize, pair: usize| f64::from(position as f32 * (pair as f32 * -step).exp());
    encoder.sinusoids(builder, angle)?;
    decoder.sinusoids(builder, angle)?;
    let part = encoder.part(&decoder, builder)?;
    part.ok_or_else(|| json.error("M2M100's models translate; only \"M2M100ForConditionalGeneration\" is supported"))
}

/// The name of the table of words, without `.weight`.
fn words(builder: &Builder) -> String {
    let names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
    builder.first_of(&names.map(|name| builder.base(name)))
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    parse(json)?;
    let tokens = words(builder);
    Ok(vec![HeadLayers::written("ForConditionalGeneration", format!("{tokens}.weight"), &[])])
}
