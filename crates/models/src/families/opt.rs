//! OPT: decoder layers with learned positions, the norms before or behind their blocks.
//!
//! Zhang et al. 2022, arXiv:2205.01068; `OPTModel` of transformers. Words may be narrower than the layers, with a matrix on
//! either side.

use centuple_graph::{NodeId, Op};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, MOST_POSITIONS, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("opt", "OPT")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "decoder.embed_tokens.weight",
    dimensions,
    build,
    heads,
};

const EPSILON: f32 = 1e-5;
/// Row of the first position.
const FIRST_POSITION: usize = 2;

/// The fields of `OPTConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    ffn_dim: usize,
    max_position_embeddings: usize,
    do_layer_norm_before: bool,
    _remove_final_layer_norm: bool,
    word_embed_proj_dim: Option<usize>,
    num_attention_heads: usize,
    activation_function: String,
    enable_bias: bool,
    layer_norm_elementwise_affine: bool,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50272,
            hidden_size: 768,
            num_hidden_layers: 12,
            ffn_dim: 3072,
            max_position_embeddings: 2048,
            do_layer_norm_before: true,
            _remove_final_layer_norm: false,
            word_embed_proj_dim: None,
            num_attention_heads: 12,
            activation_function: "relu".to_owned(),
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            tie_word_embeddings: true,
        }
    }
}

fn parse(json: Json) -> Result<(Config, usize), ModelError> {
    let config: Config = json.parse()?;
    let [width, heads] = [("hidden_size", config.hidden_size), ("num_attention_heads", config.num_attention_heads)];
    let head_dim = json.head_dim(width, heads)?;
    json.refuse("layer_norm_elementwise_affine", !config.layer_norm_elementwise_affine, "only norms with weights are")?;
    json.at_most("max_position_embeddings", config.max_position_embeddings, MOST_POSITIONS)?;
    Ok((config, head_dim))
}

impl Config {
    /// Width of the words.
    fn word_width(&self) -> usize {
        self.word_embed_proj_dim.unwrap_or(self.hidden_size)
    }

    fn norm(&self, builder: &mut Builder, x: NodeId, name: &str) -> Result<NodeId, ModelError> {
        builder.layer_norm(x, name, self.hidden_size, EPSILON)
    }

    /// A block with its residual sum and norm.
    fn block(
        &self,
        builder: &mut Builder,
        norm: &str,
        x: NodeId,
        block: impl FnOnce(&mut Builder, NodeId) -> Result<NodeId, ModelError>,
    ) -> Result<NodeId, ModelError> {
        let input = if self.do_layer_norm_before { self.norm(builder, x, norm)? } else { x };
        let output = block(builder, input)?;
        let sum = builder.add(&format!("{norm}.residual"), x, output)?;
        if self.do_layer_norm_before { Ok(sum) } else { self.norm(builder, sum, norm) }
    }
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.word_width(),
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, head_dim) = parse(json)?;
    let activation = json.activation("activation_function", &config.activation_function)?;
    let (width, word_width) = (config.hidden_size, config.word_width());
    let ids = builder.ids("input_ids")?;
    let op = Op::Positions { offset: FIRST_POSITION as i64, padding: None };
    let positions = builder.graph.push("position_ids", op, &[])?;
    let words = Table { name: builder.base("decoder.embed_tokens"), rows: config.vocab_size, ids };
    let rows = config.max_position_embeddings + FIRST_POSITION;
    let places = Table { name: builder.base("decoder.embed_positions"), rows, ids: positions };
    let mut x = if word_width == width {
        embeddings(builder, width, words, vec![places])?
    } else {
        let narrow = embeddings(builder, word_width, words, Vec::new())?;
        let wide = builder.linear_with(narrow, &builder.base("decoder.project_in"), [width, word_width], false)?;
        let places = embeddings(builder, width, places, Vec::new())?;
        builder.add("decoder.embeddings", wide, places)?
    };
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| builder.base(&format!("decoder.layers.{layer}.{part}"));
        let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|part| name(&format!("self_attn.{part}")));
        let attention = SelfAttention {
            biases: [config.enable_bias; 2],
            causal: true,
            cache: builder.cache(layer),
            ..SelfAttention::new(name("self_attn"), projections, width, config.num_attention_heads, head_dim)
        };
        let feed_forward = FeedForward {
            up: name("fc1"),
            gate: None,
            down: name("fc2"),
            width,
            inner_width: config.ffn_dim,
            activation,
            biases: [config.enable_bias; 2],
        };
        let [attended, fed] = ["self_attn_layer_norm", "final_layer_norm"].map(name);
        x = config.block(builder, &attended, x, |builder, x| attention.build(builder, x))?;
        x = config.block(builder, &fed, x, |builder, x| feed_forward.build(builder, x))?;
    }
    if config.do_layer_norm_before && !config._remove_final_layer_norm {
        x = config.norm(builder, x, &builder.base("decoder.final_layer_norm"))?;
    }
    if word_width == width {
        return Ok(x);
    }
    builder.linear_with(x, &builder.base("decoder.project_out"), [word_width, width], false)
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, _) = parse(json)?;
    let words = builder.base("decoder.embed_tokens.weight");
    Ok(vec![HeadLayers::next_token(if config.tie_word_embeddings { words } else { "lm_head.weight".to_owned() })])
}
