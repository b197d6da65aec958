//! T5: an encoder, and a decoder, of pre-norm layers by the root mean square, without biases and with scores by distance.
//!
//! Raffel et al. 2019, arXiv:1910.10683; `T5EncoderModel` and `T5ForConditionalGeneration` of transformers, and MT5's (Xue et al.
//! 2020, arXiv:2010.11934). Scores are not scaled; the table of the first layer's scores by distance serves all layers of the
//! encoder, another one the decoder's attentions to its own tokens. Version 1.1 has gated feed-forward blocks. Sentence-T5, GTR
//! and FLAN-T5 are this family.

use centuple_graph::NodeId;
use serde::Deserialize;
use serde_json::json;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, MOST_POSITIONS, RelativeBias, SelfAttention, Table, embeddings};
use crate::builder::{Builder, Part};
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

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
/// Most columns of a head.
const WIDEST_HEAD: usize = 1 << 14;

/// The fields of `T5Config` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f32,
    feed_forward_proj: String,
    n_positions: usize,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            // Not used by the model, which has no largest position; the length that it was trained on.
            n_positions: 512,
            tie_word_embeddings: true,
        }
    }
}

fn parse(json: Json) -> Result<Config, ModelError> {
    let of_mt5 = json!({
        "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": false,
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
    json.at_most("d_kv", config.d_kv, WIDEST_HEAD)?;
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
    if builder.part() == Part::Decoder {
        return decoder(&config, json, builder);
    }
    let encoded = encoder(&config, json, builder)?;
    if builder.part() == Part::Encoder {
        for layer in 0..config.decoder_layers() {
            attention(&config, &cross(layer)).remember(builder, encoded, layer)?;
        }
    }
    Ok(encoded)
}

fn encoder(config: &Config, json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let mut x = words(config, builder)?;
    let bias = relative_bias(config, "encoder", builder)?;
    for layer in 0..config.num_layers {
        let name = |part: usize| format!("encoder.block.{layer}.layer.{part}");
        let to_itself = SelfAttention { bias: Some(bias), ..attention(config, &format!("{}.SelfAttention", name(0))) };
        x = config.block(builder, &name(0), x, |builder, x| to_itself.build(builder, x))?;
        let fed = feed_forward(config, json, &format!("{}.DenseReluDense", name(1)))?;
        x = config.block(builder, &name(1), x, |builder, x| fed.build(builder, x))?;
    }
    builder.rms_norm(x, "encoder.final_layer_norm", config.d_model, config.layer_norm_epsilon)
}

fn decoder(config: &Config, json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let [buckets, distance] = [config.relative_attention_num_buckets, config.relative_attention_max_distance];
    if distance <= buckets / 2 {
        return Err(json.error(format!(
            "`relative_attention_max_distance` {distance} leaves a decoder no buckets of {buckets} for long distances"
        )));
    }
    let mut x = words(config, builder)?;
    let bias = relative_bias(config, "decoder", builder)?;
    for layer in 0..config.decoder_layers() {
        let name = |part: usize| format!("decoder.block.{layer}.layer.{part}");
        let to_itself = SelfAttention {
            bias: Some(bias),
            causal: true,
            cache: builder.cache(layer),
            ..attention(config, &format!("{}.SelfAttention", name(0)))
        };
        let to_source = attention(config, &cross(layer));
        x = config.block(builder, &name(0), x, |builder, x| to_itself.build(builder, x))?;
        x = config.block(builder, &name(1), x, |builder, x| to_source.recall(builder, x, layer))?;
        let fed = feed_forward(config, json, &format!("{}.DenseReluDense", name(2)))?;
        x = config.block(builder, &name(2), x, |builder, x| fed.build(builder, x))?;
    }
    builder.rms_norm(x, "decoder.final_layer_norm", config.d_model, config.layer_norm_epsilon)
}

/// The name of the attention of a decoder's layer to what the encoder has made.
fn cross(layer: usize) -> String {
    format!("decoder.block.{layer}.layer.1.EncDecAttention")
}

impl Config {
    fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// A block with its norm in front and its residual sum.
    fn block(
        &self,
        builder: &mut Builder,
        name: &str,
        x: NodeId,
        block: impl FnOnce(&mut Builder, NodeId) -> Result<NodeId, ModelError>,
    ) -> Result<NodeId, ModelError> {
        let normed = builder.rms_norm(x, &format!("{name}.layer_norm"), self.d_model, self.layer_norm_epsilon)?;
        let output = block(builder, normed)?;
        builder.add(&format!("{name}.residual"), x, output)
    }
}

/// Name of the table of words, without `.weight`: one table, under any of these.
fn table(builder: &Builder) -> String {
    builder.first_of(&["shared", "encoder.embed_tokens", "decoder.embed_tokens"].map(str::to_owned))
}

fn words(config: &Config, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let ids = builder.ids("input_ids")?;
    let words = Table { name: table(builder), rows: config.vocab_size, ids };
    embeddings(builder, config.d_model, words, Vec::new())
}

/// The scores by distance of the encoder's or the decoder's attentions to their own tokens.
fn relative_bias(config: &Config, stack: &str, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let bias = RelativeBias {
        name: format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"),
        buckets: config.relative_attention_num_buckets,
        max_distance: config.relative_attention_max_distance,
        heads: config.num_heads,
        causal: stack == "decoder",
    };
    bias.build(builder)
}

fn attention(config: &Config, name: &str) -> SelfAttention {
    let projections = ["q", "k", "v", "o"].map(|part| format!("{name}.{part}"));
    SelfAttention {
        scale: 1.0,
        biases: [false, false],
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

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let config = parse(json)?;
    let written = |weight: String| HeadLayers::written("ForConditionalGeneration", weight, &[]);
    if !config.tie_word_embeddings {
        return Ok(vec![written("lm_head.weight".to_owned())]);
    }
    // The table of words has another spread than a matrix of its own would have.
    let scale = Layer::Scale((config.d_model as f64).powf(-0.5) as f32);
    Ok(vec![HeadLayers { layers: vec![scale], ..written(format!("{}.weight", table(builder))) }])
}
