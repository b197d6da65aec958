//! BERT: a post-norm encoder with absolute positions and two token types.
//!
//! Devlin et al. 2018, arXiv:1810.04805; `BertModel` of transformers. Embeddings of word, token type and position
//! are summed and normalised. Each layer is self-attention and a feed-forward block, each followed by the residual
//! sum and a layer norm. MiniLM, BGE, E5, GTE (v1) and most sentence-transformers are this family.

use centuple_graph::{Activation, Binary, NodeId, Op};
use centuple_tensor::{DType, Symbol};
use serde::Deserialize;

use super::{Classifier, Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, SelfAttention};
use crate::builder::Builder;

pub(super) const FAMILY: Family = Family {
    model_type: "bert",
    class: "Bert",
    prefix: "bert.",
    probe: "embeddings.word_embeddings.weight",
    classifier: Classifier { pooler: Some(("pooler.dense", Activation::Tanh)), output: "classifier" },
    dimensions,
    build,
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
            is_decoder: false,
            add_cross_attention: false,
        }
    }
}

fn parse(json: crate::config::Config) -> Result<Config, ModelError> {
    let config: Config = json.parse()?;
    if config.position_embedding_type != "absolute" {
        return Err(json.error(format!(
            "`position_embedding_type`: \"{}\" is not supported; \"absolute\" is",
            config.position_embedding_type
        )));
    }
    for (field, value) in [("is_decoder", config.is_decoder), ("add_cross_attention", config.add_cross_attention)] {
        if value {
            return Err(json.error(format!("`{field}`: true is not supported; only BERT encoders are")));
        }
    }
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    if heads == 0 || width == 0 || width % heads != 0 {
        return Err(json.error(format!("`hidden_size` {width} is not a multiple of `num_attention_heads` {heads}")));
    }
    if !(config.layer_norm_eps >= 0.0 && config.layer_norm_eps.is_finite()) {
        return Err(json.error(format!("`layer_norm_eps`: {} is not a small positive number", config.layer_norm_eps)));
    }
    Ok(config)
}

fn dimensions(json: crate::config::Config) -> Result<Dimensions, ModelError> {
    let config = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: config.type_vocab_size,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: crate::config::Config, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config = parse(json)?;
    let activation = json.activation("hidden_act", &config.hidden_act)?;
    let mut x = embeddings(&config, builder)?;
    for layer in 0..config.num_hidden_layers {
        x = encoder_layer(&config, activation, builder, layer, x)?;
    }
    Ok(x)
}

fn embeddings(config: &Config, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let tokens = vec![Symbol::Tokens.into()];
    let ids = builder.graph.input("input_ids", DType::I64, tokens.clone())?;
    let types = builder.graph.input("token_type_ids", DType::I64, tokens)?;
    let positions = builder.graph.push("position_ids", Op::Positions { offset: 0 }, &[])?;
    let mut table = |name: &str, rows: usize, ids: NodeId| -> Result<NodeId, ModelError> {
        let name = builder.base(&format!("embeddings.{name}"));
        let table = builder.weight(&format!("{name}.weight"), &[rows, config.hidden_size])?;
        Ok(builder.graph.push(name, Op::Embedding, &[table, ids])?)
    };
    let words = table("word_embeddings", config.vocab_size, ids)?;
    let segments = table("token_type_embeddings", config.type_vocab_size, types)?;
    let places = table("position_embeddings", config.max_position_embeddings, positions)?;
    let sum = builder.graph.push("embeddings.typed", Op::Binary(Binary::Add), &[words, segments])?;
    let sum = builder.graph.push("embeddings.placed", Op::Binary(Binary::Add), &[sum, places])?;
    let norm = builder.base("embeddings.LayerNorm");
    builder.layer_norm(sum, &norm, config.hidden_size, config.layer_norm_eps)
}

fn encoder_layer(
    config: &Config,
    activation: Activation,
    builder: &mut Builder,
    layer: usize,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let name = |part: &str| builder.base(&format!("encoder.layer.{layer}.{part}"));
    let attention = SelfAttention {
        name: name("attention.self"),
        projections: ["self.query", "self.key", "self.value", "output.dense"]
            .map(|part| name(&format!("attention.{part}"))),
        width: config.hidden_size,
        heads: config.num_attention_heads,
        head_dim: config.hidden_size / config.num_attention_heads,
        causal: false,
    };
    let feed_forward = FeedForward {
        up: name("intermediate.dense"),
        down: name("output.dense"),
        width: config.hidden_size,
        inner_width: config.intermediate_size,
        activation,
    };
    let [attended, normed] = [name("attention.output"), name("output")];
    let context = attention.build(builder, x)?;
    let x = add_norm(config, builder, &attended, [context, x])?;
    let inner = feed_forward.build(builder, x)?;
    add_norm(config, builder, &normed, [inner, x])
}

/// The residual sum and the layer norm behind a block.
fn add_norm(config: &Config, builder: &mut Builder, name: &str, sum: [NodeId; 2]) -> Result<NodeId, ModelError> {
    let sum = builder.graph.push(format!("{name}.residual"), Op::Binary(Binary::Add), &sum)?;
    builder.layer_norm(sum, &format!("{name}.LayerNorm"), config.hidden_size, config.layer_norm_eps)
}
