//! RoBERTa: BERT's layers with positions that count from the padding id on.
//!
//! Liu et al. 2019, arXiv:1907.11692; `RobertaModel` of transformers, and with other tokenizers `XLMRobertaModel`
//! (Conneau et al. 2019, arXiv:1911.02116) and `CamembertModel` (Martin et al. 2019, arXiv:1911.03894). The first token has
//! the position `pad_token_id + 1`, and padding ids are not counted. Classifiers have a hidden layer of their own.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{PostNorm, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert")],
    base: "Model",
    brings_code: false,
    prefix: "roberta.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `RobertaConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    pad_token_id: Option<i64>,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    position_embedding_type: String,
    tie_word_embeddings: bool,
    is_decoder: bool,
    add_cross_attention: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            pad_token_id: Some(1),
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".to_owned(),
            tie_word_embeddings: true,
            is_decoder: false,
            add_cross_attention: false,
        }
    }
}

fn parse(json: Json) -> Result<(Config, Sizes), ModelError> {
    let config: Config = json.parse()?;
    json.absolute_positions(&config.position_embedding_type)?;
    json.encoder(config.is_decoder, config.add_cross_attention)?;
    let widths = [config.hidden_size, config.num_attention_heads, config.intermediate_size];
    let sizes = Sizes::of(json, widths, &config.hidden_act, config.layer_norm_eps)?;
    Ok((config, sizes))
}

/// The id of padding.
fn padding(config: &Config, json: Json) -> Result<i64, ModelError> {
    let known = |padding: &i64| *padding >= 0 && (*padding as u64) < config.max_position_embeddings as u64;
    config.pad_token_id.filter(known).ok_or_else(|| {
        json.error("`pad_token_id` is not an id below `max_position_embeddings`; positions are counted from it on")
    })
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: config.type_vocab_size,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings - padding(&config, json)? as usize - 1,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, sizes) = parse(json)?;
    let padding = padding(&config, json)?;
    let ids = builder.ids("input_ids")?;
    let types = builder.ids("token_type_ids")?;
    let op = Op::Positions { offset: padding + 1, padding: Some(padding) };
    let positions = builder.graph.push("position_ids", op, &[ids])?;
    let words = Table::of(builder, "word_embeddings", config.vocab_size, ids);
    let others = vec![
        Table::of(builder, "token_type_embeddings", config.type_vocab_size, types),
        Table::of(builder, "position_embeddings", config.max_position_embeddings, positions),
    ];
    let x = embeddings(builder, sizes.width, words, others)?;
    let mut x = builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), sizes.width, sizes.epsilon)?;
    for layer in 0..config.num_hidden_layers {
        x = PostNorm::new(&builder.base(&format!("encoder.layer.{layer}")), sizes).build(builder, x)?;
    }
    Ok(x)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, sizes) = parse(json)?;
    let classifier = vec![Layer::Linear("classifier.dense".to_owned()), Layer::Activation(Activation::Tanh)];
    let predictions = vec![
        Layer::Linear("lm_head.dense".to_owned()),
        Layer::Activation(Activation::Gelu),
        Layer::Norm { name: "lm_head.layer_norm".to_owned(), epsilon: sizes.epsilon },
    ];
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "lm_head.decoder.weight".to_owned()
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, classifier, "classifier.out_proj"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::vocabulary(predictions, decoder, &["lm_head.bias", "lm_head.decoder.bias"]),
    ])
}
