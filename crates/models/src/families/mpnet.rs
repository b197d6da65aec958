//! MPNet: BERT's layers with RoBERTa's positions, without token types, and with scores by distance.
//!
//! Song et al. 2020, arXiv:2004.09297; `MPNetModel` of transformers, whose embeddings take the padding id to be 1 whatever
//! the configuration says, and whose scores have 32 buckets. all-mpnet-base-v2 is this family.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{PostNorm, RelativeBias, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("mpnet", "MPNet")],
    base: "Model",
    brings_code: false,
    prefix: "mpnet.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `MPNetConfig` that change the numbers, with its defaults.
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
    layer_norm_eps: f32,
    tie_word_embeddings: bool,
    relative_attention_num_buckets: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 30527,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            tie_word_embeddings: true,
            relative_attention_num_buckets: 32,
        }
    }
}

/// Buckets of distances.
const BUCKETS: usize = 32;
/// Distances from here on share a bucket.
const MAX_DISTANCE: usize = 128;
/// The padding id: positions are counted from it on.
const PADDING: i64 = 1;

fn parse(json: Json) -> Result<(Config, Sizes), ModelError> {
    let config: Config = json.parse()?;
    if config.relative_attention_num_buckets != BUCKETS {
        let found = config.relative_attention_num_buckets;
        return Err(json.error(format!("`relative_attention_num_buckets`: {found} is not supported; {BUCKETS} is")));
    }
    let widths = [config.hidden_size, config.num_attention_heads, config.intermediate_size];
    let sizes = Sizes::of(json, widths, &config.hidden_act, config.layer_norm_eps)?;
    Ok((config, sizes))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings.saturating_sub(PADDING as usize + 1),
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, sizes) = parse(json)?;
    let ids = builder.ids("input_ids")?;
    let op = Op::Positions { offset: PADDING + 1, padding: Some(PADDING) };
    let positions = builder.graph.push("position_ids", op, &[ids])?;
    let words = Table::of(builder, "word_embeddings", config.vocab_size, ids);
    let places = Table::of(builder, "position_embeddings", config.max_position_embeddings, positions);
    let x = embeddings(builder, sizes.width, words, vec![places])?;
    let mut x = builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), sizes.width, sizes.epsilon)?;
    let bias = RelativeBias {
        name: builder.base("encoder.relative_attention_bias"),
        buckets: BUCKETS,
        max_distance: MAX_DISTANCE,
        heads: sizes.heads,
        causal: false,
    };
    let bias = bias.build(builder)?;
    for layer in 0..config.num_hidden_layers {
        let name = builder.base(&format!("encoder.layer.{layer}"));
        let mut layer = PostNorm::new(&name, sizes);
        layer.attention.projections = ["q", "k", "v", "o"].map(|part| format!("{name}.attention.attn.{part}"));
        layer.attention.bias = Some(bias);
        layer.attended = format!("{name}.attention.LayerNorm");
        x = layer.build(builder, x)?;
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
