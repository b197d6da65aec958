//! A family that nobody has published: word embeddings and gated layers. It shows what adding one takes.

use centuple_graph::{Activation, Binary, NodeId, Op, Pooling};
use centuple_tensor::{DType, Symbol};
use serde::Deserialize;

use super::{Dimensions, Family};
use crate::ModelError;
use crate::builder::Builder;
use crate::config::Config as Json;
use crate::heads::HeadLayers;

pub(super) const FAMILY: Family = Family {
    names: &[("made_up", "MadeUp")],
    base: "Model",
    brings_code: false,
    prefix: "made_up.",
    probe: "words.weight",
    dimensions,
    build,
    heads,
};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { vocab_size: 100, hidden_size: 16, num_hidden_layers: 2 }
    }
}

fn dimensions(json: Json) -> Result<Dimensions, ModelError> {
    let Config { vocab_size, hidden_size, num_hidden_layers } = json.parse()?;
    Ok(Dimensions {
        vocabulary: vocab_size,
        type_vocabulary: 0,
        width: hidden_size,
        layers: num_hidden_layers,
        max_tokens: 512,
    })
}

fn build(json: Json, builder: &mut Builder) -> Result<NodeId, ModelError> {
    let config: Config = json.parse()?;
    let width = config.hidden_size;
    let ids = builder.graph.input("input_ids", DType::I64, vec![Symbol::Tokens.into()])?;
    let words = builder.base("words");
    let table = builder.weight(&format!("{words}.weight"), &[config.vocab_size, width])?;
    let mut x = builder.graph.push(words, Op::Embedding, &[table, ids])?;
    for layer in 0..config.num_hidden_layers {
        let name = builder.base(&format!("layers.{layer}"));
        let inner = builder.linear(x, &name, [width, width])?;
        let gate = builder.graph.push(format!("{name}.gate"), Op::Activation(Activation::Sigmoid), &[inner])?;
        x = builder.graph.push(format!("{name}.gated"), Op::Binary(Binary::Mul), &[gate, x])?;
    }
    Ok(x)
}

fn heads(_: Json, _: &Builder) -> Result<Vec<HeadLayers>, ModelError> {
    Ok(vec![HeadLayers::sequence(Pooling::LastToken, Vec::new(), "classifier"), HeadLayers::tokens("classifier")])
}
