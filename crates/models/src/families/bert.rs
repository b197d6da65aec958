//! BERT: a post-norm encoder with absolute positions and two token types.
//!
//! Devlin et al. 2018, arXiv:1810.04805; `BertModel` of transformers. Embeddings of word, token type and position
//! are summed and normalised. Each layer is self-attention and a feed-forward block, each followed by the residual
//! sum and a layer norm. MiniLM, BGE, E5, GTE (v1) and most sentence-transformers are this family.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{PostNorm, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("bert", "Bert")],
    base: "Model",
    brings_code: false,
    prefix: "bert.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `BertConfig` that change the numbers, with its defaults.
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
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
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
    let ids = builder.ids("input_ids")?;
    let types = builder.ids("token_type_ids")?;
    let positions = builder.graph.push("position_ids", Op::Positions { offset: 0, padding: None }, &[])?;
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
    let pooled = vec![Layer::Linear(builder.base("pooler.dense")), Layer::Activation(Activation::Tanh)];
    let transform = |name: &str| format!("cls.predictions.transform.{name}");
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "cls.predictions.decoder.weight".to_owned()
    };
    let predictions = || {
        let layers = vec![
            Layer::Linear(transform("dense")),
            Layer::Activation(sizes.activation),
            Layer::Norm { name: transform("LayerNorm"), epsilon: sizes.epsilon },
        ];
        HeadLayers::vocabulary(layers, decoder.clone(), &["cls.predictions.bias", "cls.predictions.decoder.bias"])
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, pooled, "classifier"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        predictions(),
        HeadLayers { class: "ForPreTraining", ..predictions() },
    ])
}
