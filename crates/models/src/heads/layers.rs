//! The layers that a family puts on its hidden state for a class of transformers, as data.

use centuple_graph::{Activation, Binary, NodeId, Op, Pooling};
use centuple_tensor::Tensor;

use super::labels::{labels, problem};
use super::{Head, OUTPUT};
use crate::ModelError;
use crate::builder::{Builder, Part};
use crate::config::Config;

/// One head of a family.
pub(crate) struct HeadLayers {
    /// What follows the family's name in the class name, as `ForSequenceClassification`.
    pub(crate) class: &'static str,
    /// The rows of the hidden state that it works on.
    pub(crate) rows: Rows,
    /// What is applied to them, in order.
    pub(crate) layers: Vec<Layer>,
    /// The last matrix.
    pub(crate) output: Projection,
    /// Bound of the logits: `cap · tanh(logit / cap)`.
    pub(crate) soft_cap: Option<f32>,
    /// What comes out.
    pub(crate) meaning: Meaning,
}

/// What follows a family's name in the names of classes that tell the next token.
const GENERATING: [&str; 2] = ["ForCausalLM", "LMHeadModel"];
/// The same of classes that read a text with an encoder first.
const WRITING: [&str; 2] = ["ForConditionalGeneration", "MTModel"];

/// Whether the class `{family}{ending}` tells the next token.
pub(crate) fn generates(ending: &str) -> bool {
    GENERATING.contains(&ending) || WRITING.contains(&ending)
}

/// The part of the model that the output of the class `{family}{ending}` is of.
pub(crate) fn part_of(ending: &str) -> Part {
    if WRITING.contains(&ending) {
        Part::Decoder
    } else if GENERATING.contains(&ending) {
        Part::NextToken
    } else {
        Part::Whole
    }
}

/// Rows of the hidden state.
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    /// One per sequence.
    Pooled(Pooling),
    /// Every token.
    Tokens,
    /// The tokens that the batch picks.
    Selected,
}

/// A layer of a head.
pub(crate) enum Layer {
    /// A matrix with a bias.
    Linear(String),
    /// A matrix without a bias.
    LinearWithoutBias(String),
    /// A function of every element.
    Activation(Activation),
    /// A factor.
    Scale(f32),
    /// Layer normalisation.
    Norm { name: String, epsilon: f32 },
    /// Layer normalisation without a bias.
    NormWithoutBias { name: String, epsilon: f32 },
}

/// The last matrix of a head.
pub(crate) enum Projection {
    /// A matrix, with a bias where the flag says so.
    Linear { name: String, bias: bool },
    /// A row per token of the vocabulary.
    Vocabulary {
        /// Name of the matrix `[vocabulary, width]`: the embedding table where the two are tied.
        weight: String,
        /// Names that the bias has, the first one that is there; without any there is none.
        bias: Vec<String>,
    },
}

/// What the rows of a head's output are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Logits of labels, for a sequence.
    Classification,
    /// Logits of labels, for each token.
    TokenClassification,
    /// Logits of an answer's start and end, for each token.
    QuestionAnswering,
    /// Logits of the vocabulary, for each picked token.
    MaskedLm,
    /// Logits of the vocabulary for the token after each picked one.
    CausalLm,
    /// The same, with an encoder in front.
    Seq2SeqLm,
}

impl Meaning {
    /// The head whose output has rows of `count` such logits.
    pub(crate) fn head(self, config: Config, count: usize) -> Result<Head, ModelError> {
        Ok(match self {
            Meaning::Classification => {
                Head::Classification { labels: labels(config, count)?, problem: problem(config, count)? }
            }
            Meaning::TokenClassification => Head::TokenClassification { labels: labels(config, count)? },
            Meaning::QuestionAnswering if count == 2 => Head::QuestionAnswering,
            Meaning::QuestionAnswering => {
                return Err(config.error(format!("a question-answering head has 2 outputs, this one {count}")));
            }
            Meaning::MaskedLm => Head::MaskedLm { vocabulary: count },
            Meaning::CausalLm => Head::CausalLm { vocabulary: count },
            Meaning::Seq2SeqLm => Head::Seq2SeqLm { vocabulary: count },
        })
    }
}

impl HeadLayers {
    /// `…ForSequenceClassification`: the pooled row through `layers` and the matrix `output`.
    pub(crate) fn sequence(pooling: Pooling, layers: Vec<Layer>, output: &str) -> HeadLayers {
        HeadLayers {
            class: "ForSequenceClassification",
            rows: Rows::Pooled(pooling),
            layers,
            output: Projection::Linear { name: output.to_owned(), bias: true },
            soft_cap: None,
            meaning: Meaning::Classification,
        }
    }

    /// `…ForTokenClassification`: every token through the matrix `output`.
    pub(crate) fn tokens(output: &str) -> HeadLayers {
        HeadLayers {
            class: "ForTokenClassification",
            rows: Rows::Tokens,
            layers: Vec::new(),
            output: Projection::Linear { name: output.to_owned(), bias: true },
            soft_cap: None,
            meaning: Meaning::TokenClassification,
        }
    }

    /// `…ForQuestionAnswering`: every token through the matrix `output`.
    pub(crate) fn answers(output: &str) -> HeadLayers {
        HeadLayers { class: "ForQuestionAnswering", meaning: Meaning::QuestionAnswering, ..HeadLayers::tokens(output) }
    }

    /// `…ForMaskedLM`: picked tokens through `layers` and onto the vocabulary.
    pub(crate) fn vocabulary(layers: Vec<Layer>, weight: String, bias: &[&str]) -> HeadLayers {
        HeadLayers {
            class: "ForMaskedLM",
            rows: Rows::Selected,
            layers,
            output: Projection::Vocabulary { weight, bias: bias.iter().map(|name| (*name).to_owned()).collect() },
            soft_cap: None,
            meaning: Meaning::MaskedLm,
        }
    }

    /// `…ForCausalLM`: picked tokens onto the vocabulary.
    pub(crate) fn next_token(weight: String) -> HeadLayers {
        HeadLayers {
            class: GENERATING[0],
            meaning: Meaning::CausalLm,
            ..HeadLayers::vocabulary(Vec::new(), weight, &[])
        }
    }

    /// A class that writes a text after reading one: picked tokens onto the vocabulary.
    pub(crate) fn written(class: &'static str, weight: String, bias: &[&str]) -> HeadLayers {
        HeadLayers { class, meaning: Meaning::Seq2SeqLm, ..HeadLayers::vocabulary(Vec::new(), weight, bias) }
    }

    /// Appends the head to the last hidden state `[Tokens, width]`.
    pub(crate) fn build(&self, config: Config, builder: &mut Builder, hidden: NodeId) -> Result<Head, ModelError> {
        let logits = self.append(builder, hidden, self.rows)?;
        builder.graph.output(OUTPUT, logits);
        self.meaning.head(config, builder.width(logits))
    }

    /// Appends the layers on the given rows; yields the logits.
    pub(crate) fn append(&self, builder: &mut Builder, hidden: NodeId, rows: Rows) -> Result<NodeId, ModelError> {
        let mut x = match rows {
            Rows::Pooled(pooling) => builder.pool(hidden, pooling)?,
            Rows::Tokens => hidden,
            Rows::Selected => builder.graph.push("selected", Op::Select, &[hidden])?,
        };
        for layer in &self.layers {
            x = match layer {
                Layer::Linear(name) => dense(builder, x, name, true)?,
                Layer::LinearWithoutBias(name) => dense(builder, x, name, false)?,
                Layer::Activation(activation) => {
                    builder.graph.push("head.activation", Op::Activation(*activation), &[x])?
                }
                Layer::Scale(factor) => builder.scale(x, "head.scaled", *factor)?,
                Layer::NormWithoutBias { name, epsilon } => {
                    builder.layer_norm_without_bias(x, name, builder.width(x), *epsilon)?
                }
                Layer::Norm { name, epsilon } => builder.layer_norm(x, name, builder.width(x), *epsilon)?,
            };
        }
        let logits = match &self.output {
            Projection::Linear { name, bias } => dense(builder, x, name, *bias)?,
            Projection::Vocabulary { weight, bias } => {
                let bias = bias.iter().find(|name| builder.shape(name).is_some());
                builder.project(x, "head.vocabulary", weight, bias.map(String::as_str))?
            }
        };
        match self.soft_cap {
            Some(cap) => soft_cap(builder, logits, cap),
            None => Ok(logits),
        }
    }
}

/// `cap · tanh(x / cap)`.
fn soft_cap(builder: &mut Builder, x: NodeId, cap: f32) -> Result<NodeId, ModelError> {
    let limit = builder.graph.constant("head.cap", Tensor::from_f32(&[1], &[cap])?)?;
    let x = builder.graph.push("head.capped.part", Op::Binary(Binary::Div), &[x, limit])?;
    let x = builder.graph.push("head.capped.tanh", Op::Activation(Activation::Tanh), &[x])?;
    Ok(builder.graph.push("head.capped", Op::Binary(Binary::Mul), &[x, limit])?)
}

/// `x · weightᵀ`, with a bias where the flag says so; the checkpoint says how many rows the weight has.
fn dense(builder: &mut Builder, x: NodeId, name: &str, bias: bool) -> Result<NodeId, ModelError> {
    let bias_name = format!("{name}.bias");
    builder.project(x, name, &format!("{name}.weight"), bias.then_some(bias_name.as_str()))
}
