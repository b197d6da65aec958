//! The verifier, run after every pass.

use std::collections::HashSet;

use crate::shape::infer;
use crate::{Graph, GraphError, NodeId, Op};

impl Graph {
    /// Checks order, shapes, types and names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<(), GraphError> {
        let mut names = HashSet::new();
        for (id, node) in self.iter() {
            for &operand in &node.inputs {
                if operand >= id {
                    return Err(GraphError::Order { node: id, name: node.name.clone(), operand });
                }
            }
            let facts: Vec<_> = node.inputs.iter().map(|&input| &self.node(input).fact).collect();
            let inferred = infer(&node.op, &facts).map_err(|source| GraphError::Shape {
                node: id,
                op: node.op.name(),
                name: node.name.clone(),
                source,
            })?;
            if inferred != node.fact {
                let recorded = node.fact.clone();
                return Err(GraphError::Fact { node: id, name: node.name.clone(), recorded, inferred });
            }
            if matches!(node.op, Op::Input { .. }) && !names.insert(&node.name) {
                return Err(GraphError::Duplicate(node.name.clone()));
            }
        }
        let mut names = HashSet::new();
        for (name, id) in self.outputs() {
            if id.index() >= self.nodes().len() {
                return Err(GraphError::Order { node: NodeId(self.nodes().len()), name: name.clone(), operand: *id });
            }
            if !names.insert(name) {
                return Err(GraphError::Duplicate(name.clone()));
            }
        }
        Ok(())
    }
}
