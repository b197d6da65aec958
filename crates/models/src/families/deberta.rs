//! DeBERTa: BERT's layers, whose scores are those of contents and of relative positions.
//!
//! He et al. 2020, arXiv:2006.03654, and 2021, arXiv:2111.09543; `DebertaModel` and `DebertaV2Model` of transformers. Queries meet
//! keys of the relative positions (`c2p`), keys meet queries of theirs (`p2c`), and all is scaled by the number of terms.
//! The first version has one matrix for queries, keys and values, head by head, and projections of its own for relative
//! positions. The second and third can share the projections of the contents and put far distances into buckets.

use centuple_graph::{NodeId, Op, Pooling};
use serde::Deserialize;
use serde_json::json;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::blocks::{Disentangled, MOST_POSITIONS, PostNorm, Sizes, Table, embeddings};
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::{HeadLayers, Layer};

pub(super) const FAMILY: Family = Family {
    names: &[("deberta", "Deberta"), ("deberta-v2", "DebertaV2")],
    base: "Model",
    brings_code: false,
    prefix: "deberta.",
    probe: "embeddings.word_embeddings.weight",
    dimensions,
    build,
    heads,
};

/// The fields of `DebertaConfig` and `DebertaV2Config` that change the numbers, with the defaults of the former.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    embedding_size: Option<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    attention_head_size: Option<usize>,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    relative_attention: bool,
    max_relative_positions: i64,
    position_buckets: i64,
    norm_rel_ebd: String,
    share_att_key: bool,
    position_biased_input: bool,
    pos_att_type: Option<Terms>,
    talking_head: bool,
    conv_kernel_size: usize,
    pooler_hidden_act: String,
    legacy: bool,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            vocab_size: 50265,
            hidden_size: 768,
            embedding_size: None,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            attention_head_size: None,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            norm_rel_ebd: "none".to_owned(),
            share_att_key: false,
            position_biased_input: true,
            pos_att_type: None,
            talking_head: false,
            conv_kernel_size: 0,
            pooler_hidden_act: "gelu".to_owned(),
            legacy: true,
            tie_word_embeddings: true,
        }
    }
}

/// Names of the terms of a score, as a list or joined by `|`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Terms {
    Joined(String),
    List(Vec<String>),
}

/// What the configuration says.
struct Parsed {
    config: Config,
    sizes: Sizes,
    /// Whether it is the second version or the third.
    second: bool,
    /// Whether there are the terms `c2p` and `p2c`.
    terms: [bool; 2],
}

fn parse(json: Json) -> Result<Parsed, ModelError> {
    let second = json.model_type()? == "deberta-v2";
    let of_second = json!({
        "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
        "intermediate_size": 6144,
    });
    let value = json.with_defaults(&if second { of_second } else { json!({}) });
    let config: Config = Json { value: &value, path: json.path }.parse()?;
    json.refuse("talking_head", config.talking_head && !second, "heads that mix aren't")?;
    json.refuse(
        "conv_kernel_size",
        config.conv_kernel_size > 0 && second,
        "the convolution behind the first layer isn't",
    )?;
    let predicts = json.architecture().is_some_and(|class| class.ends_with("ForMaskedLM"));
    json.refuse("legacy", predicts && !config.legacy, "the head that false asks for isn't")?;
    json.at_most("max_position_embeddings", config.max_position_embeddings, MOST_POSITIONS)?;
    let widths = [config.hidden_size, config.num_attention_heads, config.intermediate_size];
    let sizes = Sizes::of(json, widths, &config.hidden_act, config.layer_norm_eps)?;
    let narrower = second && config.attention_head_size.is_some_and(|size| size != sizes.head_dim);
    json.refuse("attention_head_size", narrower, "only `hidden_size` by `num_attention_heads` is")?;
    let terms = terms(json, &config)?;
    Ok(Parsed { config, sizes, second, terms })
}

/// Whether `pos_att_type` has `c2p` and `p2c`.
fn terms(json: Json, config: &Config) -> Result<[bool; 2], ModelError> {
    let names: Vec<String> = match &config.pos_att_type {
        None => Vec::new(),
        Some(Terms::List(names)) => names.clone(),
        Some(Terms::Joined(names)) => names.split('|').map(|name| name.trim().to_lowercase()).collect(),
    };
    let mut found = [false; 2];
    for name in names.iter().filter(|name| !name.is_empty()) {
        let Some(term) = ["c2p", "p2c"].iter().position(|term| term == name) else {
            return Err(json.error(format!("`pos_att_type`: \"{name}\" is not supported; \"c2p\" and \"p2c\" are")));
        };
        found[term] = true;
    }
    Ok(found)
}

impl Config {
    /// Distances of which each has its own relative position: up to here, exclusively.
    fn max_relative_positions(&self) -> usize {
        usize::try_from(self.max_relative_positions)
            .ok()
            .filter(|&positions| positions > 0)
            .unwrap_or(self.max_position_embeddings)
    }

    /// Buckets of distances on either side, if there are any.
    fn buckets(&self) -> Option<usize> {
        usize::try_from(self.position_buckets).ok().filter(|&buckets| buckets > 0)
    }
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let Parsed { config, .. } = parse(json)?;
    Ok(Dimensions {
        vocabulary: config.vocab_size,
        type_vocabulary: config.type_vocab_size,
        width: config.hidden_size,
        layers: config.num_hidden_layers,
        max_tokens: config.max_position_embeddings,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let parsed = parse(json)?;
    let mut x = embedded(&parsed, builder)?;
    let relative = if parsed.config.relative_attention && parsed.terms.contains(&true) {
        Some(Relative::build(&parsed, json, builder)?)
    } else {
        None
    };
    for layer in 0..parsed.config.num_hidden_layers {
        let name = builder.base(&format!("encoder.layer.{layer}"));
        let context = attention(&parsed, builder, &format!("{name}.attention"), relative.as_ref(), x)?;
        x = PostNorm::new(&name, parsed.sizes).finish(builder, x, context)?;
    }
    Ok(x)
}

fn embedded(parsed: &Parsed, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let Parsed { config, sizes, .. } = parsed;
    let narrow = config.embedding_size.unwrap_or(sizes.width);
    let ids = builder.ids("input_ids")?;
    let words = Table { name: builder.base("embeddings.word_embeddings"), rows: config.vocab_size, ids };
    let mut others = Vec::new();
    if config.position_biased_input {
        let name = builder.base("embeddings.position_embeddings");
        let ids = builder.graph.push("position_ids", Op::Positions { offset: 0, padding: None }, &[])?;
        others.push(Table { name, rows: config.max_position_embeddings, ids });
    }
    if config.type_vocab_size > 0 {
        let name = builder.base("embeddings.token_type_embeddings");
        others.push(Table { name, rows: config.type_vocab_size, ids: builder.ids("token_type_ids")? });
    }
    let mut x = embeddings(builder, narrow, words, others)?;
    if narrow != sizes.width {
        x = builder.linear_with(x, &builder.base("embeddings.embed_proj"), [sizes.width, narrow], false)?;
    }
    builder.layer_norm(x, &builder.base("embeddings.LayerNorm"), sizes.width, sizes.epsilon)
}

/// The relative positions, which all layers share.
struct Relative {
    /// `[2 · span, width]`.
    table: NodeId,
    /// Row of each distance.
    rows: NodeId,
    span: usize,
}

impl Relative {
    fn build(parsed: &Parsed, json: Json, builder: &mut Builder) -> Result<Relative, ModelError> {
        let Parsed { config, sizes, second, .. } = parsed;
        let farthest = config.max_relative_positions();
        json.at_most("max_relative_positions", farthest, MOST_POSITIONS)?;
        let buckets = config.buckets().filter(|_| *second);
        if let Some(buckets) = buckets {
            json.at_most("position_buckets", buckets, MOST_POSITIONS)?;
            if buckets < 4 || farthest <= buckets / 2 + 1 {
                return Err(json
                    .error(format!("`position_buckets`: {buckets} leave no buckets for distances up to {farthest}")));
            }
        }
        let span = buckets.unwrap_or(farthest);
        let mut table = builder.weight(&builder.base("encoder.rel_embeddings.weight"), &[2 * span, sizes.width])?;
        if *second && config.norm_rel_ebd.to_lowercase().split('|').any(|norm| norm.trim() == "layer_norm") {
            table = builder.layer_norm(table, &builder.base("encoder.LayerNorm"), sizes.width, sizes.epsilon)?;
        }
        let rows = match buckets {
            None => Disentangled::rows(builder, span, span, |distance| distance)?,
            Some(buckets) => {
                let bucket = |distance| bucket(distance, buckets, farthest);
                Disentangled::rows(builder, config.max_position_embeddings, span, bucket)?
            }
        };
        Ok(Relative { table, rows, span })
    }
}

/// The bucket of a distance: itself up to half of the buckets, then by its logarithm, in f32 as PyTorch computes it.
fn bucket(distance: i64, buckets: usize, farthest: usize) -> i64 {
    let middle = (buckets / 2) as i64;
    if distance.abs() <= middle {
        return distance;
    }
    let growth = (distance.abs() as f32 / middle as f32).ln() / ((farthest as f32 - 1.0) / middle as f32).ln();
    let beyond = (growth * (middle - 1) as f32).ceil().clamp(0.0, middle as f32);
    (beyond as i64 + middle) * distance.signum()
}

/// Appends attention up to the context; the output projection is that of the layer.
fn attention(
    parsed: &Parsed,
    builder: &mut Builder,
    layer: &str,
    relative: Option<&Relative>,
    x: NodeId,
) -> Result<NodeId, ModelError> {
    let Parsed { config, sizes, second, terms } = parsed;
    let (name, width) = (format!("{layer}.self"), sizes.width);
    let contents = if *second {
        let [query, key, value] = ["query", "key", "value"].map(|part| format!("{name}.{part}_proj"));
        [
            builder.linear(x, &query, [width, width])?,
            builder.linear(x, &key, [width, width])?,
            builder.linear(x, &value, [width, width])?,
        ]
    } else {
        fused_projections(sizes, builder, &name, x)?
    };
    let mut positions = [None; 2];
    let own = if *second { ["pos_key_proj", "pos_query_proj"] } else { ["pos_proj", "pos_q_proj"] };
    for (term, position) in positions.iter_mut().enumerate() {
        let (Some(relative), true) = (relative, terms[term]) else { continue };
        let shared = *second && config.share_att_key;
        let weights = format!("{name}.{}", if shared { ["key_proj", "query_proj"][term] } else { own[term] });
        // The first version's keys of relative positions have no bias.
        let bias = (*second || term == 1).then(|| format!("{weights}.bias"));
        let node = format!("{name}.{}", own[term]);
        let weight = format!("{weights}.weight");
        *position = Some(builder.matrix(relative.table, &node, &weight, [width, width], bias.as_deref())?);
    }
    let summands = 1 + terms.iter().filter(|term| **term).count();
    let attention = Disentangled {
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        scale: 1.0 / ((sizes.head_dim * summands) as f32).sqrt(),
        span: relative.map_or(0, |relative| relative.span),
        rows: relative.map(|relative| relative.rows),
    };
    let [keys, queries] = positions;
    let context = attention.attend(builder, &name, contents, keys, queries)?;
    builder.linear(context, &format!("{layer}.output.dense"), [width, width])
}

/// Queries, keys and values of the first version's one matrix.
fn fused_projections(sizes: &Sizes, builder: &mut Builder, name: &str, x: NodeId) -> Result<[NodeId; 3], ModelError> {
    let Sizes { width, heads, head_dim, .. } = *sizes;
    let rows = |part: usize| -> Vec<usize> {
        (0..heads).flat_map(|head| (0..head_dim).map(move |row| (3 * head + part) * head_dim + row)).collect()
    };
    let fused = format!("{name}.in_proj");
    let parts = [("query", rows(0)), ("key", rows(1)), ("value", rows(2))];
    builder.split(&fused, [3 * width, width], false, &parts)?;
    let biases = [Some(format!("{name}.q_bias")), None, Some(format!("{name}.v_bias"))];
    let mut project = |part: usize| -> Result<NodeId, ModelError> {
        let name = format!("{fused}.{}", parts[part].0);
        builder.matrix(x, &name, &format!("{name}.weight"), [width, width], biases[part].as_deref())
    };
    Ok([project(0)?, project(1)?, project(2)?])
}

fn heads(json: Json, builder: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    let Parsed { config, sizes, .. } = parse(json)?;
    let pooled = vec![
        Layer::Linear("pooler.dense".to_owned()),
        Layer::Activation(json.activation("pooler_hidden_act", &config.pooler_hidden_act)?),
    ];
    let transform = |name: &str| format!("cls.predictions.transform.{name}");
    let predictions = vec![
        Layer::Linear(transform("dense")),
        Layer::Activation(sizes.activation),
        Layer::Norm { name: transform("LayerNorm"), epsilon: sizes.epsilon },
    ];
    let decoder = if config.tie_word_embeddings {
        builder.base("embeddings.word_embeddings.weight")
    } else {
        "cls.predictions.decoder.weight".to_owned()
    };
    Ok(vec![
        HeadLayers::sequence(Pooling::Cls, pooled, "classifier"),
        HeadLayers::tokens("classifier"),
        HeadLayers::answers("qa_outputs"),
        HeadLayers::vocabulary(predictions, decoder, &["cls.predictions.bias", "cls.predictions.decoder.bias"]),
    ])
}
