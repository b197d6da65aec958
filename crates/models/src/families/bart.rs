//! BART: an encoder and a decoder that reads the same tokens one later; the end token's last state classifies.
//!
//! Lewis et al. 2019, arXiv:1910.13461; `BartModel` of transformers. Its layers are post-norm. `MBartModel` (Liu et al. 2020,
//! arXiv:2001.08210) has pre-norm layers with a norm behind the last one, and its decoder's first token is the sequence's last.
//! The hidden state is the decoder's.

use centuple_graph::{Activation, NodeId, Op, Pooling};
use centuple_tensor::Tensor;
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("bart", "Bart"), ("mbart", "MBart")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "encoder.layernorm_embedding.weight",
    dimensions,
    build,
    heads,
};

/// Added to the variance; not a field of the configuration.
const EPSILON: f32 = 1e-5;
/// The position of the first token.
const FIRST_POSITION: usize = 2;

/// The fields of `BartConfig` and `MBartConfig` that change the numbers, with their defaults.
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
    eos_token_id: i64,
    decoder_start_token_id: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50265,
            d_model: 1024,
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            decoder_layers: 12,
            decoder_attention_heads: 16,
            decoder_ffn_dim: 4096,
            activation_function: "gelu".to_owned(),
            max_position_embeddings: 1024,
            scale_embedding: false,
            eos_token_id: 2,
            decoder_start_token_id: 2,
        }
    }
}

/// Where the norms are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// In front of each block, and behind the last layer.
    Pre,
    /// Behind each residual sum.
    Post,
}

/// The encoder or the decoder.
struct Stack<'a> {
    /// `encoder` or `decoder`, with the prefix.
    name: String,
    config: &'a Config,
    order: Order,
    activation: Activation,
    heads: usize,
    head_dim: usize,
    inner_width: usize,
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let config: Config = json.parse()?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.d_model,
        layers: config.encoder_layers.saturating_add(config.decoder_layers),
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config: Config = json.parse()?;
    let order = if json.model_type()? == "mbart" { Order::Pre } else { Order::Post };
    let activation = json.activation("activation_function", &config.activation_function)?;
    let width = ("d_model", config.d_model);
    let encoder = Stack {
        name: builder.base("encoder"),
        config: &config,
        order,
        activation,
        heads: config.encoder_attention_heads,
        head_dim: json.head_dim(width, ("encoder_attention_heads", config.encoder_attention_heads))?,
        inner_width: config.encoder_ffn_dim,
    };
    let decoder = Stack {
        name: builder.base("decoder"),
        heads: config.decoder_attention_heads,
        head_dim: json.head_dim(width, ("decoder_attention_heads", config.decoder_attention_heads))?,
        inner_width: config.decoder_ffn_dim,
        ..encoder
    };
    let ids = builder.ids("input_ids")?;
    let first = match order {
        Order::Post => Some(start(&config, json)?),
        Order::Pre => None,
    };
    let shifted = builder.graph.push("decoder_input_ids", Op::ShiftRight { first }, &[ids])?;
    let words = words(&config, builder)?;
    let encoder = Stack { name: builder.base("encoder"), ..encoder };
    let memory = encoder.build(builder, &words, ids, config.encoder_layers, None)?;
    decoder.build(builder, &words, shifted, config.decoder_layers, Some(memory))
}

/// The decoder's first token.
fn start(config: &Config, json: Json) -> Result<i64, ModelError> {
    let start = config.decoder_start_token_id;
    match usize::try_from(start) {
        Ok(known) if known < config.vocab_size => Ok(start),
        _ => Err(json.error(format!("`decoder_start_token_id`: {start} is not a token id"))),
    }
}

/// The name of the table of words, without `.weight`; scaled where the configuration says so.
fn words(config: &Config, builder: &mut Builder) -> Result<String, ModelError> {
    let names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"].map(|name| builder.base(name));
    let known = names.iter().find(|name| builder.shape(&format!("{name}.weight")).is_some());
    let name = known.unwrap_or(&names[0]).clone();
    if !config.scale_embedding {
        return Ok(name);
    }
    let shape = [config.vocab_size, config.d_model];
    let table = builder.tensor(&format!("{name}.weight"), &shape)?;
    let factor = (config.d_model as f32).sqrt();
    let scaled: Vec<f32> = table.as_f32()?.iter().map(|value| value * factor).collect();
    let name = format!("{name}.scaled");
    builder.constant(&format!("{name}.weight"), Tensor::from_f32(&shape, &scaled)?)?;
    Ok(name)
}

impl Stack<'_> {
    /// Appends embeddings and layers; `[Tokens, d_model]`. With `memory` it is a decoder that attends to it.
    fn build(
        &self,
        builder: &mut Builder,
        words: &str,
        ids: NodeId,
        layers: usize,
        memory: Option<NodeId>,
    ) -> Result<NodeId, ModelError> {
        let name = |part: &str| format!("{}.{part}", self.name);
        let op = Op::Positions { offset: FIRST_POSITION as i64, padding: None };
        let positions = builder.graph.push(name("position_ids"), op, &[])?;
        let rows = self.config.max_position_embeddings.saturating_add(FIRST_POSITION);
        let places = Table { name: name("embed_positions"), rows, ids: positions };
        let words = Table { name: words.to_owned(), rows: self.config.vocab_size, ids };
        let x = embeddings(builder, self.config.d_model, words, vec![places])?;
        let mut x = self.norm(builder, &name("layernorm_embedding"), x)?;
        for layer in 0..layers {
            let name = |part: &str| name(&format!("layers.{layer}.{part}"));
            let attention = self.attention(name("self_attn"), memory.is_some());
            x = self.block(builder, &name("self_attn_layer_norm"), x, |builder, x| attention.build(builder, x))?;
            if let Some(memory) = memory {
                let attention = self.attention(name("encoder_attn"), false);
                let norm = name("encoder_attn_layer_norm");
                x = self.block(builder, &norm, x, |builder, x| attention.build_over(builder, x, memory))?;
            }
            let feed_forward = FeedForward {
                up: name("fc1"),
                gate: None,
                down: name("fc2"),
                width: self.config.d_model,
                inner_width: self.inner_width,
                activation: self.activation,
                biases: [true, true],
            };
            x = self.block(builder, &name("final_layer_norm"), x, |builder, x| feed_forward.build(builder, x))?;
        }
        match self.order {
            Order::Pre => self.norm(builder, &name("layer_norm"), x),
            Order::Post => Ok(x),
        }
    }

    fn attention(&self, name: String, causal: bool) -> SelfAttention {
        let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|part| format!("{name}.{part}"));
        let attention = SelfAttention::new(name, projections, self.config.d_model, self.heads, self.head_dim);
        SelfAttention { causal, ..attention }
    }

    /// A block with its residual sum and norm.
    fn block(
        &self,
        builder: &mut Builder,
        norm: &str,
        x: NodeId,
        block: impl FnOnce(&mut Builder, NodeId) -> Result<NodeId, ModelError>,
    ) -> Result<NodeId, ModelError> {
        let input = match self.order {
            Order::Pre => self.norm(builder, norm, x)?,
            Order::Post => x,
        };
        let output = block(builder, input)?;
        let sum = builder.add(&format!("{norm}.residual"), output, x)?;
        match self.order {
            Order::Pre => Ok(sum),
            Order::Post => self.norm(builder, norm, sum),
        }
    }

    fn norm(&self, builder: &mut Builder, name: &str, x: NodeId) -> Result<NodeId, ModelError> {
        builder.layer_norm(x, name, self.config.d_model, EPSILON)
    }
}

fn heads(json: Json, _: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let config: Config = json.parse()?;
    let layers = vec![Layer::Linear("classification_head.dense".to_owned()), Layer::Activation(Activation::Tanh)];
    let pooling = Pooling::LastEqual(config.eos_token_id);
    Ok(vec![HeadLayers::sequence(pooling, layers, "classification_head.out_proj"), HeadLayers::answers("qa_outputs")])
}
