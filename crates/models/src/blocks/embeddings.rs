//! Sums of rows of tables.

use centuple_graph::{NodeId, Op};

use crate::ModelError;
use crate::builder::Builder;

/// A table of embeddings, and the ids that are looked up in it.
pub(crate) struct Table {
    /// Name of the table, without `.weight`.
    pub(crate) name: String,
    pub(crate) rows: usize,
    /// `[Tokens]` i64.
    pub(crate) ids: NodeId,
}

impl Table {
    /// The table `embeddings.{name}` of the base model.
    pub(crate) fn of(builder: &Builder, name: &str, rows: usize, ids: NodeId) -> Table {
        Table { name: builder.base(&format!("embeddings.{name}")), rows, ids }
    }
}

/// The sum of each token's rows of the tables, `[Tokens, width]`.
pub(crate) fn embeddings(
    builder: &mut Builder,
    width: usize,
    words: Table,
    others: Vec<Table>,
) -> Result<NodeId, ModelError> {
    let look_up = |builder: &mut Builder, Table { name, rows, ids }: &Table| -> Result<NodeId, ModelError> {
        let table = builder.weight(&format!("{name}.weight"), &[*rows, width])?;
        Ok(builder.graph.push(name.as_str(), Op::Embedding, &[table, *ids])?)
    };
    let mut sum = look_up(builder, &words)?;
    for table in &others {
        let found = look_up(builder, table)?;
        sum = builder.add(&format!("{}.sum", table.name), sum, found)?;
    }
    Ok(sum)
}
