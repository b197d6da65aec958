//! T5's encoder: pre-norm layers by the root mean square, without biases and with scores by distance.
//!
//! Raffel et al. 2019, arXiv:1910.10683; `T5EncoderModel` of transformers, and `MT5EncoderModel` (Xue et al. 2020,
//! arXiv:2010.11934). Scores are not scaled; the table of the first layer's scores by distance serves all layers. Version 1.1
//! has gated feed-forward blocks. Sentence-T5 and GTR are this family.

use centuple_graph::NodeId;
use serde::Deserialize;
use serde_json::json;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, MOST_POSITIONS, RelativeBias, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("t5", "T5"), ("mt5", "MT5")],
    base: "EncoderModel",
    brings_code: false,
    prefix: "",
    probe: "encoder.final_layer_norm.weight",
    dimensions,
    build,
    heads,
};

/// Most distances, and most heads, that a table of scores is made for.
const FARTHEST: usize = 1 << 14;
const MOST_HEADS: usize = 1 << 10;

/// The fields of `T5Config` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f32,
    feed_forward_proj: String,
    n_positions: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            // Not used by the model, which has no largest position; the length that it was trained on.
            n_positions: 512,
        }
    }
}

fn parse(json: Json) -> Result<Config, ModelError> {
    let of_mt5 = json!({
        "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
    });
    let value = json.with_defaults(&if json.model_type()? == "mt5" { of_mt5 } else { json!({}) });
    let config: Config = Json { value: &value, path: json.path }.parse()?;
    let buckets = config.relative_attention_num_buckets;
    let distance = json.at_most("relative_attention_max_distance", config.relative_attention_max_distance, FARTHEST)?;
    if buckets < 4 || distance <= buckets / 4 {
        return Err(json.error(format!(
            "`relative_attention_num_buckets` {buckets} and `relative_attention_max_distance` {distance} leave no buckets \
             for long distances"
        )));
    }
    json.at_most("num_heads", config.num_heads, MOST_HEADS)?;
    json.epsilon("layer_norm_epsilon", config.layer_norm_epsilon)?;
    feed_forward(&config, json, "")?;
    Ok(config)
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let config = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.d_model,
        layers: config.num_layers,
        max_tokens: json.at_most("n_positions", config.n_positions, MOST_POSITIONS)?,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config = parse(json)?;
    let (width, epsilon) = (config.d_model, config.layer_norm_epsilon);
    let ids = builder.ids("input_ids")?;
    // One table, under either name.
    let names = ["shared", "encoder.embed_tokens"];
    let name = names.into_iter().find(|name| builder.shape(&format!("{name}.weight")).is_some());
    let words = Table { name: name.unwrap_or("shared").to_owned(), rows: config.vocab_size, ids };
    let mut x = embeddings(builder, width, words, Vec::new())?;
    let bias = RelativeBias {
        name: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias".to_owned(),
        buckets: config.relative_attention_num_buckets,
        max_distance: config.relative_attention_max_distance,
        heads: config.num_heads,
    };
    let bias = bias.build(builder)?;
    for layer in 0..config.num_layers {
        let attention = format!("encoder.block.{layer}.layer.0");
        let normed = builder.rms_norm(x, &format!("{attention}.layer_norm"), width, epsilon)?;
        let context = self_attention(&config, &format!("{attention}.SelfAttention"), bias).build(builder, normed)?;
        x = builder.add(&format!("{attention}.residual"), x, context)?;
        let inner = format!("encoder.block.{layer}.layer.1");
        let normed = builder.rms_norm(x, &format!("{inner}.layer_norm"), width, epsilon)?;
        let fed = feed_forward(&config, json, &format!("{inner}.DenseReluDense"))?.build(builder, normed)?;
        x = builder.add(&format!("{inner}.residual"), x, fed)?;
    }
    builder.rms_norm(x, "encoder.final_layer_norm", width, epsilon)
}

fn self_attention(config: &Config, name: &str, bias: NodeId) -> SelfAttention {
    let projections = ["q", "k", "v", "o"].map(|part| format!("{name}.{part}"));
    SelfAttention {
        scale: 1.0,
        biases: [false, false],
        bias: Some(bias),
        ..SelfAttention::new(name.to_owned(), projections, config.d_model, config.num_heads, config.d_kv)
    }
}

fn feed_forward(config: &Config, json: Json, name: &str) -> Result<FeedForward, ModelError> {
    let gated = config.feed_forward_proj.strip_prefix("gated-");
    let activation = match gated {
        // What T5 calls GELU is its approximation, but only where it gates.
        Some("gelu") => "gelu_new",
        Some(activation) => activation,
        None => &config.feed_forward_proj,
    };
    let [up, gate] = match gated {
        Some(_) => [format!("{name}.wi_0"), format!("{name}.wi_1")],
        None => [format!("{name}.wi"), String::new()],
    };
    Ok(FeedForward {
        up,
        gate: gated.map(|_| gate),
        down: format!("{name}.wo"),
        width: config.d_model,
        inner_width: config.d_ff,
        activation: json.activation("feed_forward_proj", activation)?,
        biases: [false, false],
    })
}

/// Classes with a head have a decoder.
fn heads(_: Json, _: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    Ok(Vec::new())
}
