//! ModernBERT: pre-norm layers with rotary positions, gated feed-forward blocks, and mostly local attention.
//!
//! Warner et al. 2024, arXiv:2412.13663; `ModernBertModel` of transformers. Every `global_attn_every_n_layers`th layer sees the
//! whole sequence, the others `local_attention / 2` tokens on either side, and the two kinds rotate by different bases. Norms
//! and matrices have biases only where the configuration says so.

use centuple_graph::{NodeId, Pooling};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{FeedForward, Rotary, SelfAttention, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("modernbert", "ModernBert")],
    base: "Model",
    brings_code: false,
    prefix: "model.",
    probe: "embeddings.tok_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// Most columns of a feed-forward block.
const WIDEST: usize = 1 << 20;

/// The fields of `ModernBertConfig` that change the numbers, with its defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_activation: String,
    max_position_embeddings: usize,
    norm_eps: f32,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    global_attn_every_n_layers: usize,
    local_attention: usize,
    global_rope_theta: f64,
    local_rope_theta: Option<f64>,
    tie_word_embeddings: bool,
    decoder_bias: bool,
    classifier_pooling: String,
    classifier_bias: bool,
    classifier_activation: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50368,
            hidden_size: 768,
            intermediate_size: 1152,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            hidden_activation: "gelu".to_owned(),
            max_position_embeddings: 8192,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            mlp_bias: false,
            global_attn_every_n_layers: 3,
            local_attention: 128,
            global_rope_theta: 160_000.0,
            local_rope_theta: Some(10_000.0),
            tie_word_embeddings: true,
            decoder_bias: true,
            classifier_pooling: "cls".to_owned(),
            classifier_bias: false,
            classifier_activation: "gelu".to_owned(),
        }
    }
}

fn parse(json: Json) -> Result<(Config, usize), ModelError> {
    let config: Config = json.parse()?;
    let [width, heads] = [("hidden_size", config.hidden_size), ("num_attention_heads", config.num_attention_heads)];
    let head_dim = json.head_dim(width, heads)?;
    if config.global_attn_every_n_layers == 0 {
        return Err(json.error("`global_attn_every_n_layers` is 0; 1 makes every layer global"));
    }
    json.at_most("max_position_embeddings", config.max_position_embeddings, Rotary::most_positions(head_dim))?;
    json.at_most("intermediate_size", config.intermediate_size, WIDEST)?;
    json.rotary_base("global_rope_theta", config.global_rope_theta)?;
    json.rotary_base("local_rope_theta", config.local_rope_theta.unwrap_or(config.global_rope_theta))?;
    json.epsilon("norm_eps", config.norm_eps)?;
    Ok((config, head_dim))
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let (config, _) = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: 0,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let (config, head_dim) = parse(json)?;
    let activation = json.activation("hidden_activation", &config.hidden_activation)?;
    let (width, inner_width) = (config.hidden_size, config.intermediate_size);
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embeddings.tok_embeddings"), rows: config.vocab_size, ids };
    let x = embeddings(builder, width, words, Vec::new())?;
    let mut x = norm(&config, builder, &builder.base("embeddings.norm"), x)?;
    let positions = config.max_position_embeddings;
    let local_theta = config.local_rope_theta.unwrap_or(config.global_rope_theta);
    let global = Rotary::new(builder, "global", positions, head_dim, config.global_rope_theta)?;
    let local = Rotary::new(builder, "local", positions, head_dim, local_theta)?;
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| builder.base(&format!("layers.{layer}.{part}"));
        let [attention_name, attention_norm, mlp, mlp_norm] = ["attn", "attn_norm", "mlp", "mlp_norm"].map(name);
        let is_global = layer % config.global_attn_every_n_layers == 0;
        let fused = format!("{attention_name}.Wqkv");
        let parts = ["query", "key", "value"];
        let rows = |part: usize| (part * width..(part + 1) * width).collect();
        let rows = [0, 1, 2].map(|part| (parts[part], rows(part)));
        builder.split(&fused, [3 * width, width], config.attention_bias, &rows)?;
        let [query, key, value] = parts.map(|part| format!("{fused}.{part}"));
        let projections = [query, key, value, format!("{attention_name}.Wo")];
        let attention = SelfAttention {
            biases: [config.attention_bias; 2],
            window: (!is_global).then_some(config.local_attention / 2),
            rotary: Some(if is_global { global.clone() } else { local.clone() }),
            ..SelfAttention::new(attention_name, projections, width, config.num_attention_heads, head_dim)
        };
        // The embeddings are normalised already.
        let normed = if layer == 0 { x } else { norm(&config, builder, &attention_norm, x)? };
        let context = attention.build(builder, normed)?;
        x = builder.add(&format!("{}.residual", attention.name), x, context)?;

        let fused = format!("{mlp}.Wi");
        let rows = [("up", (0..inner_width).collect()), ("gate", (inner_width..2 * inner_width).collect())];
        builder.split(&fused, [2 * inner_width, width], config.mlp_bias, &rows)?;
        let feed_forward = FeedForward {
            up: format!("{fused}.up"),
            gate: Some(format!("{fused}.gate")),
            down: format!("{mlp}.Wo"),
            width,
            inner_width,
            activation,
            biases: [config.mlp_bias; 2],
        };
        let normed = norm(&config, builder, &mlp_norm, x)?;
        let fed = feed_forward.build(builder, normed)?;
        x = builder.add(&format!("{mlp}.residual"), x, fed)?;
    }
    norm(&config, builder, &builder.base("final_norm"), x)
}

fn norm(config: &Config, builder: &mut Builder, name: &str, x: NodeId) -> Result<NodeId, ModelError> {
    if config.norm_bias {
        builder.layer_norm(x, name, config.hidden_size, config.norm_eps)
    } else {
        builder.layer_norm_without_bias(x, name, config.hidden_size, config.norm_eps)
    }
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let (config, _) = parse(json)?;
    let pooling = match config.classifier_pooling.as_str() {
        "cls" => Pooling::Cls,
        "mean" => Pooling::Mean,
        other => {
            let reason = format!("`classifier_pooling`: \"{other}\" is not supported; \"cls\" and \"mean\" are");
            return Err(json.error(reason));
        }
    };
    let activation = json.activation("classifier_activation", &config.classifier_activation)?;
    let layers = || {
        let [dense, name] = ["head.dense".to_owned(), "head.norm".to_owned()];
        let epsilon = config.norm_eps;
        vec![
            if config.classifier_bias { Layer::Linear(dense) } else { Layer::LinearWithoutBias(dense) },
            Layer::Activation(activation),
            if config.norm_bias { Layer::Norm { name, epsilon } } else { Layer::NormWithoutBias { name, epsilon } },
        ]
    };
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.tok_embeddings.weight")
    } else {
        "decoder.weight".to_owned()
    };
    let bias: &[&str] = if config.decoder_bias { &["decoder.bias"] } else { &[] };
    Ok(vec![
        HeadLayers::sequence(pooling, layers(), "classifier"),
        HeadLayers { layers: layers(), ..HeadLayers::tokens("classifier") },
        HeadLayers { layers: layers(), ..HeadLayers::answers("classifier") },
        HeadLayers::vocabulary(layers(), decoder, bias),
    ])
}
