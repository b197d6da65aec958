//! What depends on ids and positions only: rows looked up in a table → `Embedding`, by ids, shifted ids or `Positions`.
//!
//! Indices are known by their values for probe ids. A value that depends on no input at all, but has a row for each position (what was
//! looked up by position, rotations, the row of the one token type), is a table with that row for every position.

use std::collections::{BTreeSet, HashMap};

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::{DType, Dim, Shape, Symbol, Tensor};

use super::RaiseOptions;
use super::probe::{Probe, ambient, noise};
use super::tidy::broadcast;
use crate::rewrite::{Outcome, Rewrite, rewrite};

/// Most values that are looked at, by ids and by position.
const MAX_PLACES: usize = 32;
/// Elements of all tables by position, beyond which there is no further one.
const MAX_ELEMENTS: usize = 1 << 26;

pub(crate) fn run(graph: &Graph, options: &RaiseOptions) -> Result<Outcome, GraphError> {
    let ambient = ambient(graph);
    let mut lookups: HashMap<NodeId, Option<Index>> = HashMap::new();
    let mut tables: HashMap<NodeId, Result<Tensor, String>> = HashMap::new();
    rewrite(graph, |state, id, node| {
        if ambient[id.index()] {
            return Ok(None);
        }
        if let (Op::Gather { axis: 0 }, &[table, indices]) = (&node.op, node.inputs.as_slice())
            && is_table(graph, table)
            && !ambient[indices.index()]
        {
            if lookups.len() >= MAX_PLACES && !lookups.contains_key(&indices) {
                state.refuse(node, "too many tables are looked up in");
                return Ok(None);
            }
            let index = lookups.entry(indices).or_insert_with(|| Index::of(graph, indices, table, options));
            return match index {
                Some(index) => index.embedding(state, node, table).map(Some),
                None => Ok(None),
            };
        }
        by_position(state, node, &ambient, &mut tables, options)
    })
}

fn is_table(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let is_constant = graph.constant_of(id).is_some() || node.op == Op::Dequantize;
    is_constant && node.fact.dtype == DType::F32 && node.fact.shape.len() == 2
}

/// Indices `[Sequences, Sequence]` of a table's rows, made of the ids in one of the ways that there are ops for.
enum Index {
    /// An input as it is.
    Ids(NodeId),
    /// Positions that skip one of the ids.
    Positions { ids: NodeId, offset: i64, padding: i64 },
    /// Each sequence's ids one token later.
    Shifted { ids: NodeId, first: Option<i64> },
}

impl Index {
    fn of(graph: &Graph, indices: NodeId, table: NodeId, options: &RaiseOptions) -> Option<Index> {
        let above = above(graph, indices);
        let is_input = |id: &&NodeId| matches!(graph.node(**id).op, Op::Input { .. });
        let mut inputs = above.iter().filter(is_input);
        let (&ids, None) = (inputs.next()?, inputs.next()) else { return None };
        let vocabulary = graph.node(table).fact.shape.first()?.constant()?;
        let numbers: BTreeSet<i64> = above.iter().filter_map(|&id| whole(graph.constant_of(id)?)).collect();
        let vocabulary = i64::try_from(vocabulary).ok()?;
        let draw = Draw { named: &numbers, with_named: true, vocabulary, longest: options.max_tokens };
        let samples = Samples::new(graph, [ids, indices], &draw)?;
        if samples.all(|ids, index| ids == index) {
            return Some(Index::Ids(ids));
        }
        for padding in numbers.iter().copied() {
            let Some(offset) = samples.first(|id| id != padding) else { continue };
            if samples.all(|ids, index| counted(ids, offset, padding) == index) {
                return Some(Index::Positions { ids, offset, padding });
            }
        }
        // Files count padding to find a sequence's end; a sequence alone has none.
        let samples = Samples::new(graph, [ids, indices], &Draw { with_named: false, ..draw })?;
        let first = samples.first(|_| true)?;
        [Some(first), None].into_iter().find_map(|first| {
            let is = samples.all(|ids, index| shifted(ids, first) == index);
            is.then_some(Index::Shifted { ids, first })
        })
    }

    fn embedding(&self, state: &mut Rewrite, node: &Node, table: NodeId) -> Result<NodeId, GraphError> {
        let name = format!("{}.ids", node.name);
        let ids = match *self {
            Index::Ids(ids) => state.image(ids),
            Index::Positions { ids, offset, padding } => {
                let ids = state.image(ids);
                state.new.push(name, Op::Positions { offset, padding: Some(padding) }, &[ids])?
            }
            Index::Shifted { ids, first } => {
                let ids = state.image(ids);
                state.new.push(name, Op::ShiftRight { first }, &[ids])?
            }
        };
        let table = state.image(table);
        let rows = state.new.push(node.name.clone(), Op::Embedding, &[table, ids])?;
        padded(state, node, rows)
    }
}

/// Packed rows under the node's padded shape.
fn padded(state: &mut Rewrite, node: &Node, rows: NodeId) -> Result<NodeId, GraphError> {
    let padded = state.new.push(node.name.clone(), Op::Pad, &[rows])?;
    let shape = node.fact.shape.clone();
    if state.new.node(padded).fact.shape == shape {
        return Ok(padded);
    }
    state.new.push(node.name.clone(), Op::Reshape { shape }, &[padded])
}

fn counted(ids: &[i64], offset: i64, padding: i64) -> Vec<i64> {
    let mut next = offset - 1;
    let mut position = |&id: &i64| {
        if id == padding {
            return offset - 1;
        }
        next += 1;
        next
    };
    ids.iter().map(&mut position).collect()
}

fn shifted(ids: &[i64], first: Option<i64>) -> Vec<i64> {
    let before = first.or(ids.last().copied());
    before.into_iter().chain(ids.iter().copied()).take(ids.len()).collect()
}

/// Everything that a value is computed of.
pub(crate) fn above(graph: &Graph, id: NodeId) -> BTreeSet<NodeId> {
    let mut above = BTreeSet::new();
    let mut waiting = vec![id];
    while let Some(next) = waiting.pop() {
        if above.insert(next) {
            waiting.extend(&graph.node(next).inputs);
        }
    }
    above
}

/// The one whole number of a constant.
fn whole(tensor: &Tensor) -> Option<i64> {
    match (tensor.as_f32(), tensor.as_i64()) {
        (Ok(&[number]), _) if number.fract() == 0.0 && number.abs() < 16_777_216.0 => Some(number as i64),
        (_, Ok(&[number])) => Some(number),
        _ => None,
    }
}

/// How probe ids are drawn.
struct Draw<'a> {
    /// Ids that the region knows by name.
    named: &'a BTreeSet<i64>,
    /// Whether they are among the probe's.
    with_named: bool,
    vocabulary: i64,
    /// Tokens of the longest sequence.
    longest: usize,
}

impl Draw<'_> {
    fn sequence(&self, length: usize) -> Vec<i64> {
        let range = 0..self.vocabulary.max(1);
        let named: Vec<i64> = self.named.iter().copied().filter(|id| range.contains(id)).collect();
        let unnamed = |id: i64| range.clone().map(|step| (id + step) % range.end).find(|id| !named.contains(id));
        let number = |index: usize| ((noise(index) + 1.0) * 1e6) as usize;
        let draw = |token: usize| {
            let (id, pick) = (number(2 * token + length) as i64 % range.end, number(2 * token + length + 1));
            let is_named = self.with_named && length > 2 && pick.is_multiple_of(3);
            let named = named.get(pick / 3 % named.len().max(1)).filter(|_| is_named);
            named.copied().or_else(|| unnamed(id)).unwrap_or(id)
        };
        (0..length).map(draw).collect()
    }
}

/// Indices for sequences of probe ids.
struct Samples(Vec<(Vec<i64>, Vec<i64>)>);

impl Samples {
    fn new(graph: &Graph, [ids, indices]: [NodeId; 2], draw: &Draw) -> Option<Samples> {
        let mut samples = Vec::new();
        for length in [1, 2, 7, 19, 40] {
            let length = length.min(draw.longest.max(1));
            let sample = draw.sequence(length);
            let mut probe = Probe::new(graph, &[length])?;
            probe.give(ids, Tensor::from_i64(&[length], &sample).ok()?)?;
            let index = probe.value(indices)?;
            let index = index.as_f32().ok()?.iter().map(|&index| index as i64).collect();
            samples.push((sample, index));
        }
        Some(Samples(samples))
    }

    fn all(&self, is: impl Fn(&[i64], Vec<i64>) -> bool) -> bool {
        self.0.iter().all(|(ids, index)| is(ids, index.clone()))
    }

    /// The index of the first token of a sequence, where its id is as asked for.
    fn first(&self, is: impl Fn(i64) -> bool) -> Option<i64> {
        let firsts = self.0.iter().filter_map(|(ids, index)| Some((*ids.first()?, *index.first()?)));
        firsts.into_iter().find(|(id, _)| is(*id)).map(|(_, index)| index)
    }
}

/// An op over token rows that reads a value with a row for each position: the value becomes a table that is looked up.
fn by_position(
    state: &mut Rewrite,
    node: &Node,
    ambient: &[bool],
    tables: &mut HashMap<NodeId, Result<Tensor, String>>,
    options: &RaiseOptions,
) -> Result<Option<NodeId>, GraphError> {
    let [sequences, sequence] = [Symbol::Sequences, Symbol::Sequence].map(Dim::from);
    let is_over_rows = node.fact.shape.starts_with(&[sequences.clone(), sequence.clone()]);
    if !matches!(node.op, Op::Binary(_) | Op::Where) || !is_over_rows {
        return Ok(None);
    }
    let mut inputs = state.images(&node.inputs);
    let mut changed = false;
    for (input, &old) in inputs.iter_mut().zip(&node.inputs) {
        let Some(row) = row_of(state.old, old, &node.fact.shape).filter(|_| ambient[old.index()]) else { continue };
        let held: usize = tables.values().flatten().map(Tensor::len).sum();
        if (tables.len() >= MAX_PLACES || held > MAX_ELEMENTS) && !tables.contains_key(&old) {
            state.refuse(node, "too many values depend on the position");
            continue;
        }
        let table = tables.entry(old).or_insert_with(|| table(state.old, old, &row, options));
        let table = match table {
            Ok(table) => table.clone(),
            Err(reason) => {
                let reason = reason.clone();
                state.refuse(node, reason);
                continue;
            }
        };
        let name = state.old.node(old).name.clone();
        let is_number = table.shape().is_empty();
        let table = state.new.constant(format!("{name}.table"), table)?;
        if is_number {
            *input = table;
            changed = true;
            continue;
        }
        let positions = state.new.push(format!("{name}.positions"), Op::Positions { offset: 0, padding: None }, &[])?;
        let rows = state.new.push(name.clone(), Op::Embedding, &[table, positions])?;
        let padded = state.new.push(name.clone(), Op::Pad, &[rows])?;
        let shape = [&[sequences.clone(), sequence.clone()], row.as_slice()].concat();
        *input = state.new.push(name, Op::Reshape { shape }, &[padded])?;
        changed = true;
    }
    let shapes = inputs.iter().map(|&input| state.new.node(input).fact.shape.as_slice());
    if !changed || broadcast(shapes).as_ref() != Some(&node.fact.shape) {
        return Ok(None);
    }
    state.new.push(node.name.clone(), node.op.clone(), &inputs).map(Some)
}

/// The dimensions of one position's row, where a value that is broadcast to `[Sequences, Sequence, ...]` has one for each.
fn row_of(graph: &Graph, id: NodeId, result: &Shape) -> Option<Shape> {
    let shape = &graph.node(id).fact.shape;
    let at = (shape.len() + 1).checked_sub(result.len())?;
    let (leading, rest) = shape.split_at_checked(at)?;
    let [position, row @ ..] = rest else { return None };
    let is_alike = leading.iter().all(|dim| dim.constant() == Some(1) || *dim == Dim::from(Symbol::Sequences));
    let is_row = row.iter().all(|dim| dim.constant().is_some());
    (is_alike && is_row && *position == Dim::from(Symbol::Sequence)).then(|| row.to_vec())
}

/// The rows of all positions `[P, W]`, or the one number that they consist of; else why there are none.
fn table(graph: &Graph, id: NodeId, row: &Shape, options: &RaiseOptions) -> Result<Tensor, String> {
    let sizes = row.iter().filter_map(Dim::constant);
    let width = sizes.into_iter().try_fold(1usize, |width, size| width.checked_mul(size));
    let width = width.ok_or("the rows of positions are too wide")?;
    let rows = |length: usize| {
        let value = Probe::new(graph, &[length])?.value(id)?;
        value.as_f32().ok().map(<[f32]>::to_vec).filter(|data| Some(data.len()) == length.checked_mul(width))
    };
    let most = options.max_tokens.max(1);
    let whole = rows(most).ok_or_else(|| format!("the rows of {most} positions cannot be computed"))?;
    for length in [1, 2, 7, 33, most / 2 + 1].into_iter().filter(|&length| length < most) {
        let part = rows(length).ok_or_else(|| format!("the rows of {length} positions cannot be computed"))?;
        let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-6 * a.abs().max(1.0);
        if !part.iter().zip(&whole).all(near) {
            return Err("the rows of positions depend on the length of the sequence".to_owned());
        }
    }
    let shape: &[usize] = if whole.windows(2).all(|pair| pair[0] == pair[1]) { &[] } else { &[most, width] };
    let elements = shape.iter().product();
    Tensor::from_f32(shape, whole.get(..elements).unwrap_or_default()).map_err(|error| error.to_string())
}
