//! How long a sequence may be for what a graph looks up by position.

use centuple_graph::{Graph, NodeId, Op};
use centuple_tensor::{DType, Tensor};

use super::probe::Probe;

/// Ids that sequences consist of, one at a time: some models count positions past the id of the padding only.
const IDS: [i64; 2] = [0, 2];
/// Most indices of a lookup that is tried out.
const MOST_INDICES: usize = 1 << 18;

/// A table and what it is looked up at.
struct Lookup {
    rows: usize,
    indices: NodeId,
}

/// Most tokens of a sequence, up to `most`, for which all that `graph` looks up by position is in its tables; at least 1.
pub fn longest_sequence(graph: &Graph, most: usize) -> usize {
    let longest = |id: i64| {
        // What one token doesn't find isn't looked up by position.
        let lookups: Vec<Lookup> = lookups(graph).filter(|lookup| fits(graph, lookup, id, 1)).collect();
        let fit = |tokens: usize| lookups.iter().all(|lookup| fits(graph, lookup, id, tokens));
        let (mut longest, mut too_long) = (1, most.saturating_add(1));
        if fit(most) {
            return most;
        }
        while too_long - longest > 1 {
            let middle = longest + (too_long - longest) / 2;
            if fit(middle) { longest = middle } else { too_long = middle }
        }
        longest
    };
    IDS.map(longest).into_iter().min().unwrap_or(most).max(1)
}

fn lookups(graph: &Graph) -> impl Iterator<Item = Lookup> {
    let rows = |table: NodeId, axis: usize| graph.node(table).fact.shape.get(axis)?.constant();
    graph.nodes().iter().flat_map(move |node| {
        let pairs: Vec<(Option<usize>, NodeId)> = match (&node.op, node.inputs.as_slice()) {
            (Op::Gather { axis }, [table, indices]) => vec![(rows(*table, *axis), *indices)],
            (Op::Embedding, inputs) => inputs.chunks_exact(2).map(|pair| (rows(pair[0], 0), pair[1])).collect(),
            _ => Vec::new(),
        };
        pairs.into_iter().filter_map(|(rows, indices)| Some(Lookup { rows: rows?, indices }))
    })
}

/// Whether all indices of a sequence of so many tokens are in the table; also where that can't be said.
fn fits(graph: &Graph, lookup: &Lookup, id: i64, tokens: usize) -> bool {
    let largest = || -> Option<f64> {
        let mut probe = Probe::new(graph, &[tokens])?;
        if probe.shape(lookup.indices)?.iter().product::<usize>() > MOST_INDICES {
            return None;
        }
        for (input, node) in graph.inputs().filter(|(_, node)| node.fact.dtype == DType::I64) {
            let id = if node.name == "input_ids" { id } else { 0 };
            probe.give(input, Tensor::from_i64(&probe.shape(input)?, &vec![id; tokens]).ok()?)?;
        }
        let indices = probe.value(lookup.indices)?;
        match indices.as_i64() {
            Ok(indices) => indices.iter().max().map(|&index| index as f64),
            Err(_) => indices.as_f32().ok()?.iter().copied().max_by(f32::total_cmp).map(f64::from),
        }
    };
    largest().is_none_or(|largest| largest < lookup.rows as f64)
}

#[cfg(test)]
mod tests {
    use centuple_graph::{Binary, GraphError};
    use centuple_tensor::Symbol;

    use super::*;

    #[test]
    fn tables_of_positions_bound_sequences() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let ids = graph.input("input_ids", DType::I64, vec![Symbol::Tokens.into()])?;
        let zeros = |shape: &[usize]| Tensor::from_f32(shape, &vec![0.0; shape.iter().product()]).unwrap();
        let words = graph.constant("words", zeros(&[1, 4]))?;
        let word_rows = graph.push("word rows", Op::Embedding, &[words, ids])?;
        graph.output("words", word_rows);
        assert_eq!(longest_sequence(&graph, 100), 100);

        let table = graph.constant("positions", zeros(&[40, 4]))?;
        let first = graph.constant("first", Tensor::from_f32(&[1], &[3.0]).unwrap())?;
        let positions = graph.push("iota", Op::Iota { size: Symbol::Sequence.into() }, &[])?;
        let positions = graph.push("shifted", Op::Binary(Binary::Add), &[positions, first])?;
        let rows = graph.push("rows", Op::Gather { axis: 0 }, &[table, positions])?;
        graph.output("positions", rows);
        assert_eq!([100, 37, 36, 1].map(|most| longest_sequence(&graph, most)), [37, 37, 36, 1]);

        let positions = graph.push("native", Op::Positions { offset: 20, padding: Some(0) }, &[ids])?;
        let rows = graph.push("rows", Op::Embedding, &[table, positions])?;
        graph.output("native", rows);
        assert_eq!(longest_sequence(&graph, 100), 20);
        Ok(())
    }
}
