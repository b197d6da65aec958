//! RoFormer: BERT's layers with rotary positions, and embeddings that may be narrower.
//!
//! Su et al. 2021, arXiv:2104.09864; `RoFormerModel` of transformers. Neighbouring columns of a head are rotated together;
//! `rotary_value` says whether values are as well.

use centuple_graph::{NodeId, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{PostNorm, Rotary, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("roformer", "RoFormer")],
    base: "Model",
    brings_code: false,
    prefix: "roformer.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The angles of a position fall by this factor from the first pair to beyond the last one.
const BASE: f64 = 10_000.0;

/// The fields of `RoFormerConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    embedding_size: Option<usize>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    rotary_value: bool,
    tie_word_embeddings: bool,
    is_decoder: bool,
    add_cross_attention: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50000,
            embedding_size: None,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 1536,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            rotary_value: false,
            tie_word_embeddings: true,
            is_decoder: false,
            add_cross_attention: false,
        }
    }
}

fn parse(json: Json) -> Result<(Config, Sizes), ModelError> {
    let config: Config = json.parse()?;
    json.encoder(config.is_decoder, config.add_cross_attention)?;
    let widths = [config.hidden_size, config.num_attention_heads, config.intermediate_size];
    let sizes = Sizes::of(json, widths, &config.hidden_act, config.layer_norm_eps)?;
    json.at_most("max_position_embeddings", config.max_position_embeddings, Rotary::most_positions(sizes.head_dim))?;
    Ok((config, sizes))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: config.type_vocab_size,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, sizes) = parse(json)?;
    let narrow = config.embedding_size.unwrap_or(sizes.width);
    let [ids, types] = [builder.ids("input_ids")?, builder.ids("token_type_ids")?];
    let words = Table::of(builder, "word_embeddings", config.vocab_size, ids);
    let segments = Table::of(builder, "token_type_embeddings", config.type_vocab_size, types);
    let x = embeddings(builder, narrow, words, vec![segments])?;
    let mut x = builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), narrow, sizes.epsilon)?;
    if narrow != sizes.width {
        x = builder.linear(x, &builder.base("embeddings_project"), [sizes.width, narrow])?;
    }
    let mut rotary = Rotary::new(builder, "rotary", config.max_position_embeddings, sizes.head_dim, BASE)?;
    (rotary.interleaved, rotary.values) = (true, config.rotary_value);
    for layer in 0..config.num_hidden_layers {
        let mut layer = PostNorm::new(&builder.base(&format!("encoder.layer.{layer}")), sizes);
        layer.attention.rotary = Some(rotary.clone());
        x = layer.build(builder, x)?;
    }
    Ok(x)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, sizes) = parse(json)?;
    let classifier = vec![Layer::Linear("classifier.dense".to_owned()), Layer::Activation(sizes.activation)];
    let transform = |name: &str| format!("cls.predictions.transform.{name}");
    let predictions = vec![
        Layer::Linear(transform("dense")),
        Layer::Activation(sizes.activation),
        Layer::Norm { name: transform("LayerNorm"), epsilon: sizes.epsilon },
    ];
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "cls.predictions.decoder.weight".to_owned()
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, classifier, "classifier.out_proj"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::vocabulary(predictions, decoder, &["cls.predictions.bias", "cls.predictions.decoder.bias"]),
    ])
}
