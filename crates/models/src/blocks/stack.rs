//! Encoders and decoders of BART's kind (Lewis et al. 2019, arXiv:1910.13461): layers with biases, and positions that are looked
//! up in a table.

use centuple_graph::{Activation, NodeId, Op};
use centuple_tensor::Tensor;

use super::{FeedForward, MOST_POSITIONS, SelfAttention, Table, embeddings};
use crate::ModelError;
use crate::builder::{Builder, Part};

/// Added to the variance; not a field of the configurations.
const EPSILON: f32 = 1e-5;

/// Why words that are not tied to the logits are refused.
pub(crate) const UNTIED: &str = "only models with one table of words for texts, answers and logits are";
/// Most numbers of a table of positions.
const MOST_NUMBERS: usize = 1 << 28;

/// Most positions of a stack of that width.
pub(crate) fn most_places(width: usize) -> usize {
    MOST_POSITIONS.min(MOST_NUMBERS / width.max(1))
}

/// Where the norms of blocks are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// In front of each block.
    Pre,
    /// Behind each residual sum.
    Post,
}

/// An encoder, or a decoder.
#[derive(Clone)]
pub(crate) struct Stack {
    /// What stands before the names of its tensors.
    pub(crate) name: String,
    /// Name of the table of words, without `.weight`, and its rows.
    pub(crate) words: (String, usize),
    /// What words are multiplied by.
    pub(crate) word_scale: Option<f32>,
    /// Rows of the table of positions.
    pub(crate) places: usize,
    /// Row of the first position.
    pub(crate) first_place: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner_width: usize,
    pub(crate) activation: Activation,
    pub(crate) order: Order,
    /// Whether there is a norm behind the sum of the embeddings, and one behind the last layer.
    pub(crate) end_norms: [bool; 2],
}

/// What the layers attend to besides their own values.
#[derive(Clone, Copy)]
pub(crate) enum Memory {
    /// Nothing: an encoder.
    Nothing,
    /// Values over the same sequences.
    Values(NodeId),
    /// What an encoder has left in the cache.
    Cache,
}

impl Stack {
    /// Appends what a builder of one part of a model that generates asks for: the encoder with what the decoder's layers make of
    /// its result, or the decoder. `None` where the builder is of another kind.
    pub(crate) fn part(&self, decoder: &Stack, builder: &mut Builder) -> Result<Option<NodeId>, ModelError> {
        match builder.part() {
            Part::Encoder => {
                let ids = builder.ids("input_ids")?;
                let memory = self.build(builder, ids, Memory::Nothing)?;
                for layer in 0..decoder.layers {
                    let attention = decoder.attention(&format!("{}.layers.{layer}.encoder_attn", decoder.name));
                    attention.remember(builder, memory, layer)?;
                }
                Ok(Some(memory))
            }
            Part::Decoder => {
                let ids = builder.ids("input_ids")?;
                decoder.build(builder, ids, Memory::Cache).map(Some)
            }
            Part::Whole | Part::NextToken => Ok(None),
        }
    }

    /// Appends embeddings and layers; `[Tokens, width]`. With a memory it is a decoder.
    pub(crate) fn build(&self, builder: &mut Builder, ids: NodeId, memory: Memory) -> Result<NodeId, ModelError> {
        let name = |part: &str| format!("{}.{part}", self.name);
        let [embedding_norm, last_norm] = self.end_norms;
        let mut x = self.embed(builder, ids)?;
        if embedding_norm {
            x = self.norm(builder, &name("layernorm_embedding"), x)?;
        }
        for layer in 0..self.layers {
            let name = |part: &str| name(&format!("layers.{layer}.{part}"));
            let decodes = !matches!(memory, Memory::Nothing);
            let cache = builder.cache(layer).filter(|_| decodes);
            let attention = SelfAttention { causal: decodes, cache, ..self.attention(&name("self_attn")) };
            x = self.block(builder, &name("self_attn_layer_norm"), x, |builder, x| attention.build(builder, x))?;
            let attention = self.attention(&name("encoder_attn"));
            let norm = name("encoder_attn_layer_norm");
            x = match memory {
                Memory::Nothing => x,
                Memory::Values(values) => {
                    self.block(builder, &norm, x, |builder, x| attention.build_over(builder, x, values))?
                }
                Memory::Cache => self.block(builder, &norm, x, |builder, x| attention.recall(builder, x, layer))?,
            };
            let feed_forward = FeedForward {
                up: name("fc1"),
                gate: None,
                down: name("fc2"),
                width: self.width,
                inner_width: self.inner_width,
                activation: self.activation,
                biases: [true, true],
            };
            x = self.block(builder, &name("final_layer_norm"), x, |builder, x| feed_forward.build(builder, x))?;
        }
        if last_norm { self.norm(builder, &name("layer_norm"), x) } else { Ok(x) }
    }

    fn embed(&self, builder: &mut Builder, ids: NodeId) -> Result<NodeId, ModelError> {
        let op = Op::Positions { offset: self.first_place as i64, padding: None };
        let positions = builder.graph.push(format!("{}.position_ids", self.name), op, &[])?;
        let places = Table { name: format!("{}.embed_positions", self.name), rows: self.places, ids: positions };
        let (name, rows) = self.words.clone();
        let words = Table { name, rows, ids };
        let Some(factor) = self.word_scale else { return embeddings(builder, self.width, words, vec![places]) };
        let words = embeddings(builder, self.width, words, Vec::new())?;
        let words = builder.scale(words, &format!("{}.scaled", self.name), factor)?;
        let places = embeddings(builder, self.width, places, Vec::new())?;
        builder.add(&format!("{}.embeddings", self.name), words, places)
    }

    fn attention(&self, name: &str) -> SelfAttention {
        let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|part| format!("{name}.{part}"));
        SelfAttention::new(name.to_owned(), projections, self.width, self.heads, self.head_dim)
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
        builder.layer_norm(x, name, self.width, EPSILON)
    }

    /// Gives the stack a table of sines and, behind them, cosines, of an angle for each position and pair of columns.
    pub(crate) fn sinusoids(
        &self,
        builder: &mut Builder,
        angle: impl Fn(usize, usize) -> f64,
    ) -> Result<(), ModelError> {
        let half = self.width / 2;
        let mut values = Vec::with_capacity(self.places * self.width);
        for position in 0..self.places {
            values.extend((0..self.width - half).map(|pair| angle(position, pair).sin() as f32));
            values.extend((0..half).map(|pair| angle(position, pair).cos() as f32));
        }
        let table = Tensor::from_f32(&[self.places, self.width], &values)?;
        builder.constant(&format!("{}.embed_positions.weight", self.name), table)?;
        Ok(())
    }
}
