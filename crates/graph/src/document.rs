//! A graph as a document: everything but the elements of its constants.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Graph, GraphError, NodeId, Op};

/// A graph without the elements of its constants, to be stored beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    nodes: Vec<Line>,
    outputs: Vec<(String, usize)>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    op: Op,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<usize>,
    /// The earlier constant whose elements this one shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    same_as: Option<usize>,
}

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The nodes make no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A constant shares elements with something else than an equal constant before it.
    #[error("node {node} (`{name}`) shares the elements of node {of}, which is no equal constant before it")]
    Shared {
        /// The node.
        node: usize,
        /// Its name.
        name: String,
        /// What it refers to.
        of: usize,
    },
    /// An output is no node.
    #[error("output `{name}` is node {node}, but there are {nodes} nodes")]
    Output {
        /// The output.
        name: String,
        /// The node.
        node: usize,
        /// Number of nodes.
        nodes: usize,
    },
}

impl Graph {
    /// The document of the graph.
    pub fn document(&self) -> Document {
        let mut first_of = HashMap::new();
        let line = |(id, node): (NodeId, &crate::Node)| {
            let same_as = self.constant_of(id).and_then(|tensor| {
                let first = *first_of.entry((tensor.identity(), tensor.dtype(), tensor.shape().to_vec())).or_insert(id);
                (first != id).then_some(first.index())
            });
            let inputs = node.inputs.iter().map(|input| input.index()).collect();
            Line { name: node.name.clone(), op: node.op.clone(), inputs, same_as }
        };
        let nodes = self.iter().map(line).collect();
        let outputs = self.outputs().iter().map(|(name, id)| (name.clone(), id.index())).collect();
        Document { nodes, outputs }
    }
}

impl Document {
    /// The graph, its constants only declared.
    ///
    /// # Errors
    /// The nodes make no graph.
    pub fn graph(&self) -> Result<Graph, DocumentError> {
        let mut graph = Graph::new();
        for (node, line) in self.nodes.iter().enumerate() {
            let mut op = line.op.clone();
            if let Some(of) = line.same_as {
                let earlier = (of < node).then(|| graph.constant_of(NodeId(of))).flatten();
                op = match (&op, earlier) {
                    (Op::Constant(own), Some(shared)) if own == shared => Op::Constant(shared.clone()),
                    _ => return Err(DocumentError::Shared { node, name: line.name.clone(), of }),
                };
            }
            let inputs: Vec<NodeId> = line.inputs.iter().map(|&input| NodeId(input)).collect();
            graph.push(line.name.clone(), op, &inputs)?;
        }
        for (name, node) in &self.outputs {
            let (node, nodes) = (*node, self.nodes.len());
            if node >= nodes {
                return Err(DocumentError::Output { name: name.clone(), node, nodes });
            }
            graph.output(name, NodeId(node));
        }
        graph.verify()?;
        Ok(graph)
    }
}

/// A constant as its type and shape.
pub(crate) mod declaration {
    use centuple_tensor::{DType, Tensor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Declaration {
        dtype: DType,
        shape: Vec<usize>,
    }

    pub(crate) fn serialize<S: Serializer>(tensor: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
        Declaration { dtype: tensor.dtype(), shape: tensor.shape().to_vec() }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tensor, D::Error> {
        let Declaration { dtype, shape } = Declaration::deserialize(deserializer)?;
        Tensor::declared(dtype, &shape).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use centuple_tensor::{DType, Symbol, Tensor};

    use super::*;
    use crate::Activation;

    fn graph() -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 4.into()]).unwrap();
        let weight = Tensor::from_f32(&[4, 4], &[0.5; 16]).unwrap();
        let first = graph.constant("first", weight.clone()).unwrap();
        let second = graph.constant("second", weight).unwrap();
        let linear = Op::Linear { bias: false, activation: Some(Activation::GeluTanh), residual: false };
        let y = graph.push("y", linear.clone(), &[x, first]).unwrap();
        let z = graph.push("z", linear, &[y, second]).unwrap();
        graph.output("out", z);
        graph
    }

    #[test]
    fn a_graph_is_read_as_it_was_written() {
        let document = graph().document();
        let text = serde_json::to_string(&document).unwrap();
        let read: Document = serde_json::from_str(&text).unwrap();
        assert_eq!(read, read.graph().unwrap().document());
        let read = read.graph().unwrap();
        assert_eq!(read.to_string(), graph().to_string());
        let [first, second] = [1, 2].map(|node| read.constant_of(NodeId(node)).unwrap());
        assert!(first.is_declared() && first.identity() == second.identity());
    }

    #[test]
    fn nonsense_is_refused() {
        let text = serde_json::to_string(&graph().document()).unwrap();
        for (from, to) in [
            (r#""same_as":1"#, r#""same_as":2"#),
            (r#""same_as":1"#, r#""same_as":0"#),
            (r#"["out",4]"#, r#"["out",5]"#),
            (r#""inputs":[0,1]"#, r#""inputs":[0,7]"#),
            (r#""inputs":[0,1]"#, r#""inputs":[0]"#),
            (r#"{"dtype":"f32","shape":[4,4]}"#, r#"{"dtype":"f32","shape":[4,5]}"#),
        ] {
            assert!(text.contains(from), "{from} is not in {text}");
            let document: Document = serde_json::from_str(&text.replacen(from, to, 1)).unwrap();
            assert!(document.graph().is_err(), "{from} became {to}");
        }
        let huge = text.replace("[4,4]", "[18446744073709551615,4]");
        assert!(serde_json::from_str::<Document>(&huge).is_err());
    }
}
