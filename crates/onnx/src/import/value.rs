//! What the values of a file are while it is imported.

use centuple_graph::NodeId;
use centuple_tensor::Dim;

use super::quantized::Quantized;
use crate::file::{Constant, Element};

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Known numbers.
    Constant(Constant),
    /// A matrix `[K, N]` that is the transpose of the constant `[N, K]`, as linear layers want it.
    Transposed(Constant),
    /// Whole numbers that depend on the sizes of a batch.
    Dims(Dims),
    /// Numbers that the graph computes.
    Node(NodeId, Element),
    /// Codes on the way to or from numbers.
    Quantized(Quantized),
    /// The places of an id, and rows at them; how many there are shows with the texts only.
    Marked(Marked),
}

/// Rows at the places of an id, on the way to the last one of each sequence.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    /// The id.
    pub(super) id: i64,
    pub(super) form: Form,
}

/// What has become of the places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// `[2, places]`.
    Places,
    /// `[places, 2]`.
    Turned,
    /// `[places, H]`: rows of `[Sequences, Sequence, H]`.
    Rows(NodeId),
    /// The same as `[Sequences, places of one, H]`.
    Grouped(NodeId),
}

/// A scalar or vector (or small tensor) of dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dims {
    pub(super) shape: Vec<usize>,
    pub(super) elements: Vec<Dim>,
    /// [`Element::Int`], or [`Element::Float`] behind a cast.
    pub(super) element: Element,
}

impl Dims {
    pub(super) fn vector(elements: Vec<Dim>) -> Dims {
        Dims { shape: vec![elements.len()], elements, element: Element::Int }
    }

    pub(super) fn scalar(dim: Dim) -> Dims {
        Dims { shape: Vec::new(), elements: vec![dim], element: Element::Int }
    }
}

impl From<Constant> for Value {
    fn from(constant: Constant) -> Value {
        Value::Constant(constant)
    }
}
