//! DistilBERT: BERT's layers, half as many, without token types.
//!
//! Sanh et al. 2019, arXiv:1910.01108; `DistilBertModel` of transformers.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, PostNorm, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("distilbert", "DistilBert")],
    base: "Model",
    brings_code: false,
    prefix: "distilbert.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `DistilBertConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    activation: String,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: "gelu".to_owned(),
            max_position_embeddings: 512,
            tie_word_embeddings: true,
        }
    }
}

/// Added to the variance; not a field of the configuration.
const EPSILON: f32 = 1e-12;

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let config: Config = json.parse()?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.dim,
        layers: config.n_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config: Config = json.parse()?;
    let head_dim = json.head_dim(("dim", config.dim), ("n_heads", config.n_heads))?;
    let activation = json.activation("activation", &config.activation)?;
    let ids = builder.ids("input_ids")?;
    let positions = builder.graph.push("position_ids", Op::Positions { offset: 0, padding: None }, &[])?;
    let words = Table::of(builder, "word_embeddings", config.vocab_size, ids);
    let places = Table::of(builder, "position_embeddings", config.max_position_embeddings, positions);
    let x = embeddings(builder, config.dim, words, vec![places])?;
    let mut x = builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), config.dim, EPSILON)?;
    for layer in 0..config.n_layers {
        let name = |part: &str| builder.base(&format!("transformer.layer.{layer}.{part}"));
        let projections = ["q_lin", "k_lin", "v_lin", "out_lin"].map(|part| name(&format!("attention.{part}")));
        let layer = PostNorm {
            attention: SelfAttention::new(name("attention"), projections, config.dim, config.n_heads, head_dim),
            attended: name("sa_layer_norm"),
            feed_forward: FeedForward {
                up: name("ffn.lin1"),
                gate: None,
                down: name("ffn.lin2"),
                width: config.dim,
                inner_width: config.hidden_dim,
                activation,
                biases: [true, true],
            },
            norm: name("output_layer_norm"),
            epsilon: EPSILON,
        };
        x = layer.build(builder, x)?;
    }
    Ok(x)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let config: Config = json.parse()?;
    let activation = json.activation("activation", &config.activation)?;
    let classifier = vec![Layer::Linear("pre_classifier".to_owned()), Layer::Activation(Activation::Relu)];
    let predictions = vec![
        Layer::Linear("vocab_transform".to_owned()),
        Layer::Activation(activation),
        Layer::Norm { name: "vocab_layer_norm".to_owned(), epsilon: EPSILON },
    ];
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "vocab_projector.weight".to_owned()
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, classifier, "classifier"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::vocabulary(predictions, decoder, &["vocab_projector.bias"]),
    ])
}
