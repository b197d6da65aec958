//! ALBERT: BERT's layers with narrow embeddings, and weights that layers share.
//!
//! Lan et al. 2019, arXiv:1909.11942; `AlbertModel` of transformers. The layers are divided into groups; those of a group are
//! the same `inner_group_num` layers over and over.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, PostNorm, SelfAttention, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("albert", "Albert")],
    base: "Model",
    brings_code: false,
    prefix: "albert.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `AlbertConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    embedding_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_hidden_groups: usize,
    inner_group_num: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    position_embedding_type: String,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 30000,
            embedding_size: 128,
            hidden_size: 4096,
            num_hidden_layers: 12,
            num_hidden_groups: 1,
            inner_group_num: 1,
            num_attention_heads: 64,
            intermediate_size: 16384,
            hidden_act: "gelu_new".to_owned(),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".to_owned(),
            tie_word_embeddings: true,
        }
    }
}

/// Layers cost no weights, so a file could ask for any number of them.
const MOST_LAYERS: usize = 1024;

fn parse(json: Json) -> Result<(Config, Sizes), ModelError> {
    let config: Config = json.parse()?;
    json.absolute_positions(&config.position_embedding_type)?;
    json.at_most("num_hidden_layers", config.num_hidden_layers, MOST_LAYERS)?;
    json.at_most("inner_group_num", config.inner_group_num, MOST_LAYERS / config.num_hidden_layers.max(1))?;
    let groups = config.num_hidden_groups;
    if groups == 0 || groups > config.num_hidden_layers {
        return Err(json.error(format!("`num_hidden_groups` {groups} is not between 1 and `num_hidden_layers`")));
    }
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
    let x = embeddings(builder, config.embedding_size, words, others)?;
    let mut x = builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), config.embedding_size, sizes.epsilon)?;
    let wide = builder.base("encoder.embedding_hidden_mapping_in");
    x = builder.linear(x, &wide, [sizes.width, config.embedding_size])?;
    for layer in 0..config.num_hidden_layers {
        // transformers divides floats and truncates.
        let group = layer * config.num_hidden_groups / config.num_hidden_layers;
        for inner in 0..config.inner_group_num {
            let stored = format!("encoder.albert_layer_groups.{group}.albert_layers.{inner}.");
            let name = builder.base(&format!("encoder.layer.{layer}.{inner}"));
            builder.share(format!("{name}."), builder.base(&stored));
            x = self::layer(&name, sizes).build(builder, x)?;
        }
    }
    Ok(x)
}

fn layer(layer: &str, sizes: Sizes) -> PostNorm {
    let name = |part: &str| format!("{layer}.{part}");
    let projections = ["query", "key", "value", "dense"].map(|part| name(&format!("attention.{part}")));
    PostNorm {
        attention: SelfAttention::new(name("attention"), projections, sizes.width, sizes.heads, sizes.head_dim),
        attended: name("attention.LayerNorm"),
        feed_forward: FeedForward {
            up: name("ffn"),
            gate: None,
            down: name("ffn_output"),
            width: sizes.width,
            inner_width: sizes.inner_width,
            activation: sizes.activation,
            biases: [true, true],
        },
        norm: name("full_layer_layer_norm"),
        epsilon: sizes.epsilon,
    }
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, sizes) = parse(json)?;
    let pooled = vec![Layer::Linear(builder.base("pooler")), Layer::Activation(Activation::Tanh)];
    let predictions = vec![
        Layer::Linear("predictions.dense".to_owned()),
        Layer::Activation(sizes.activation),
        Layer::Norm { name: "predictions.LayerNorm".to_owned(), epsilon: sizes.epsilon },
    ];
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "predictions.decoder.weight".to_owned()
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, pooled, "classifier"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::vocabulary(predictions, decoder, &["predictions.bias", "predictions.decoder.bias"]),
    ])
}
