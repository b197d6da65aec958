//! The graph: nodes in topological order, each with one output.

use std::fmt;

use centuple_tensor::{DType, Shape, Tensor};

use crate::Op;
use crate::shape::{ShapeError, infer};

/// Index of a node, and of the one value it yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// What is known of a value before any batch arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Element type.
    pub dtype: DType,
    /// Symbolic shape.
    pub shape: Shape,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{}[{}]", self.dtype, dims.join(", "))
    }
}

/// One operator application.
#[derive(Clone, Debug)]
pub struct Node {
    /// A name for messages and reports: the weight's or the module's name in the checkpoint.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Operands; each stands before this node.
    pub inputs: Vec<NodeId>,
    /// Type and shape of the result.
    pub fact: Fact,
}

/// What can be wrong with a graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// An op does not fit its operands.
    #[error("node {node} ({op} `{name}`): {source}")]
    Shape {
        /// The node.
        node: NodeId,
        /// Name of the op.
        op: &'static str,
        /// Name of the node.
        name: String,
        /// What does not fit.
        source: ShapeError,
    },
    /// A node reads a value that does not stand before it.
    #[error("node {node} (`{name}`) reads {operand}, which does not stand before it")]
    Order {
        /// The node.
        node: NodeId,
        /// Name of the node.
        name: String,
        /// The operand.
        operand: NodeId,
    },
    /// A recorded fact differs from the one that the op yields.
    #[error("node {node} (`{name}`) is recorded as {recorded} but yields {inferred}")]
    Fact {
        /// The node.
        node: NodeId,
        /// Name of the node.
        name: String,
        /// The fact in the graph.
        recorded: Fact,
        /// The fact from the shape rules.
        inferred: Fact,
    },
    /// An output or two inputs are named badly.
    #[error("the graph has two inputs or outputs called `{0}`")]
    Duplicate(String),
}

/// A computation from inputs and constants to named outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    outputs: Vec<(String, NodeId)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Appends an operator and infers its fact.
    ///
    /// # Errors
    /// The op does not fit the operands.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let node = NodeId(self.nodes.len());
        let name = name.into();
        let mut facts = Vec::with_capacity(inputs.len());
        for &operand in inputs {
            let Some(input) = self.nodes.get(operand.0) else {
                return Err(GraphError::Order { node, name, operand });
            };
            facts.push(&input.fact);
        }
        let fact = match infer(&op, &facts) {
            Ok(fact) => fact,
            Err(source) => return Err(GraphError::Shape { node, op: op.name(), name, source }),
        };
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), fact });
        Ok(node)
    }

    /// Appends an input.
    ///
    /// # Errors
    /// None today; the signature is that of [`Graph::push`].
    pub fn input(&mut self, name: &str, dtype: DType, shape: Shape) -> Result<NodeId, GraphError> {
        self.push(name, Op::Input { dtype, shape }, &[])
    }

    /// Appends a constant.
    ///
    /// # Errors
    /// None today; the signature is that of [`Graph::push`].
    pub fn constant(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<NodeId, GraphError> {
        self.push(name, Op::Constant(tensor), &[])
    }

    /// Names a value as an output of the graph.
    pub fn output(&mut self, name: &str, node: NodeId) {
        self.outputs.push((name.to_owned(), node));
    }

    /// Takes all outputs away, so that others can be named.
    pub fn take_outputs(&mut self) -> Vec<(String, NodeId)> {
        std::mem::take(&mut self.outputs)
    }

    /// All nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids and nodes in topological order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// The node behind an id of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The tensor of a constant node.
    pub fn constant_of(&self, id: NodeId) -> Option<&Tensor> {
        if let Op::Constant(tensor) = &self.node(id).op { Some(tensor) } else { None }
    }

    /// Named outputs in order.
    pub fn outputs(&self) -> &[(String, NodeId)] {
        &self.outputs
    }

    /// Ids and nodes of the inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.iter().filter(|(_, node)| matches!(node.op, Op::Input { .. }))
    }

    /// How often each node is read, by node index; an output counts as a reader.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        let operands = self.nodes.iter().flat_map(|node| &node.inputs);
        for id in operands.chain(self.outputs.iter().map(|(_, id)| id)) {
            counts[id.0] += 1;
        }
        counts
    }
}
