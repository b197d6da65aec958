//! Row-wise regions with a mean or a sum in them → `LayerNorm`, `RmsNorm`, `L2Normalize`.
//!
//! A norm is known by what it makes of probe rows. What it adds to the variance, and the vectors that scale and shift, are constants
//! of the region: those that explain its values are taken.

use std::collections::{BTreeSet, HashMap, HashSet};

use centuple_graph::{Graph, GraphError, NodeId, Op, Reduction};
use centuple_tensor::{DType, Tensor};

use super::probe::{ambient, noise};
use super::region::{Kind, Region, readers};
use crate::rewrite::{Outcome, Rewrite, rewrite};

/// Sizes of the probe rows: what is added to a variance, or bounds a norm, shows in small ones only.
const SCALES: [f32; 9] = [1.0, 1.0, 3.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-14];
/// Largest number that can be what a norm adds to the variance.
const MAX_EPSILON: f32 = 0.01;
/// Widest rows that are looked at.
const MAX_WIDTH: usize = 1 << 16;
/// Most elements that are computed in search of norms.
const MAX_WORK: usize = 1 << 31;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let found = find(graph);
    rewrite(graph, |state, id, node| {
        let Some(norm) = found.get(&id) else { return Ok(None) };
        let source = state.image(norm.source);
        let mut inputs = vec![source];
        let (gamma, beta) = match norm.form {
            Form::LayerNorm => (true, true),
            Form::RmsNorm => (true, false),
            Form::L2Normalize => (false, false),
        };
        if gamma {
            inputs.push(norm.vector(state, &node.name, norm.gamma, 1.0)?);
        }
        if beta {
            inputs.push(norm.vector(state, &node.name, norm.beta, 0.0)?);
        }
        let (epsilon, residual) = (norm.epsilon, false);
        let op = match norm.form {
            Form::LayerNorm => Op::LayerNorm { epsilon, residual },
            Form::RmsNorm => Op::RmsNorm { epsilon, residual },
            Form::L2Normalize => Op::L2Normalize { epsilon },
        };
        state.new.push(node.name.clone(), op, &inputs).map(Some)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    LayerNorm,
    RmsNorm,
    L2Normalize,
}

/// A norm that was found.
struct Norm {
    form: Form,
    source: NodeId,
    epsilon: f32,
    width: usize,
    gamma: Option<NodeId>,
    beta: Option<NodeId>,
}

impl Norm {
    /// A parameter as `[W]`, filled where the region has none.
    fn vector(&self, state: &mut Rewrite, name: &str, id: Option<NodeId>, fill: f32) -> Result<NodeId, GraphError> {
        let shape = [self.width];
        let own = id.and_then(|id| state.old.constant_of(id).map(|tensor| (id, tensor)));
        if let Some((id, tensor)) = own
            && let Ok(vector) = tensor.reshaped(&shape)
        {
            return state.new.constant(state.old.node(id).name.clone(), vector);
        }
        let name = format!("{name}.{}", if fill == 0.0 { "beta" } else { "gamma" });
        match Tensor::from_f32(&shape, &vec![fill; self.width]) {
            Ok(vector) => state.new.constant(name, vector),
            Err(_) => Ok(state.image(self.source)),
        }
    }
}

/// The nodes that are a norm of another one.
fn find(graph: &Graph) -> HashMap<NodeId, Norm> {
    let (readers, ambient) = (readers(graph), ambient(graph));
    let (mut found, mut covered, mut work) = (HashMap::new(), HashSet::new(), MAX_WORK);
    for source in sources(graph, &ambient) {
        let region = Region::behind(graph, &readers, source, Kind::Rows);
        let Some(width) = graph.node(source).fact.shape.last().and_then(|dim| dim.constant()) else { continue };
        let cost = SCALES.len() * width * region.nodes.len();
        if width > MAX_WIDTH || cost > work {
            continue;
        }
        work -= cost;
        let Some(rows) = probe_rows(width) else { continue };
        let Some(values) = region.values(&rows) else { continue };
        let fit = Fit::new(&region, &rows, width);
        for &root in region.nodes.iter().rev() {
            if covered.contains(&root) || graph.node(root).fact.shape != graph.node(source).fact.shape {
                continue;
            }
            let Some(value) = values.get(&root).and_then(|value| value.as_f32().ok()) else { continue };
            if let Some(norm) = fit.norm(source, value) {
                covered.extend(region.above(root));
                found.insert(root, norm);
                break;
            }
        }
    }
    found
}

/// Values that may be the variable of a norm, in topological order: what is reduced over the last dimension, and what
/// that is the square or a multiple of.
fn sources(graph: &Graph, ambient: &[bool]) -> BTreeSet<NodeId> {
    let mut sources = BTreeSet::new();
    for node in graph.nodes() {
        let Op::Reduce { reduction: Reduction::Sum | Reduction::Mean, axes } = &node.op else { continue };
        if *axes != [node.fact.shape.len() - 1] {
            continue;
        }
        let mut id = node.inputs[0];
        for _ in 0..4 {
            if ambient[id.index()] || graph.node(id).fact.dtype != DType::F32 {
                break;
            }
            sources.insert(id);
            let node = graph.node(id);
            let is_variable = |input: &&NodeId| graph.constant_of(**input).is_none();
            let mut variables = node.inputs.iter().filter(is_variable);
            let (Some(&first), true) = (variables.next(), matches!(node.op, Op::Unary(_) | Op::Binary(_))) else {
                break;
            };
            if variables.any(|&other| other != first) {
                break;
            }
            id = first;
        }
    }
    sources
}

/// Rows `[R, W]` of many sizes, two of them with a mean.
fn probe_rows(width: usize) -> Option<Tensor> {
    let mut data = Vec::with_capacity(SCALES.len() * width);
    for (row, scale) in SCALES.into_iter().enumerate() {
        let mean = if row == 1 || row == 2 { 0.5 } else { 0.0 };
        data.extend((0..width).map(|column| (noise(row * width + column) + mean) * scale));
    }
    Tensor::from_f32(&[SCALES.len(), width], &data).ok()
}

/// What the values of one region are compared with.
struct Fit<'a> {
    width: usize,
    rows: Vec<f32>,
    epsilons: Vec<f32>,
    vectors: Vec<(NodeId, &'a [f32])>,
    /// Normalised rows by form and epsilon, as far as they were asked for.
    normalised: Vec<(Form, f32, Vec<f64>)>,
}

impl<'a> Fit<'a> {
    fn new(region: &Region<'a>, rows: &Tensor, width: usize) -> Fit<'a> {
        let (mut epsilons, mut vectors) = (vec![0.0], Vec::new());
        for (id, tensor) in region.constants() {
            let Ok(data) = tensor.as_f32() else { continue };
            match data {
                &[number] if number > 0.0 && number <= MAX_EPSILON && !epsilons.contains(&number) => {
                    epsilons.push(number)
                }
                data if data.len() == width => vectors.push((id, data)),
                _ => {}
            }
        }
        let rows = rows.as_f32().map(<[f32]>::to_vec).unwrap_or_default();
        let mut fit = Fit { width, rows, epsilons, vectors, normalised: Vec::new() };
        for form in [Form::LayerNorm, Form::RmsNorm, Form::L2Normalize] {
            for epsilon in fit.epsilons.clone() {
                fit.normalised.push((form, epsilon, fit.normalise(form, epsilon)));
            }
        }
        fit
    }

    fn normalise(&self, form: Form, epsilon: f32) -> Vec<f64> {
        let epsilon = f64::from(epsilon);
        let mut out = Vec::with_capacity(self.rows.len());
        for row in self.rows.chunks_exact(self.width) {
            let count = self.width as f64;
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let centre = if form == Form::LayerNorm { mean } else { 0.0 };
            let squares = row.iter().map(|&x| (f64::from(x) - centre).powi(2)).sum::<f64>();
            let divisor = match form {
                Form::LayerNorm | Form::RmsNorm => (squares / count + epsilon).sqrt(),
                Form::L2Normalize => squares.sqrt().max(epsilon),
            };
            out.extend(row.iter().map(|&x| (f64::from(x) - centre) / divisor));
        }
        out
    }

    /// The norm that yields these values.
    fn norm(&self, source: NodeId, values: &[f32]) -> Option<Norm> {
        for (form, epsilon, normalised) in &self.normalised {
            let none = [(None, None)];
            let vectors = || self.vectors.iter().map(|&(id, data)| (Some(id), Some(data)));
            let gammas = none.into_iter().chain(vectors()).filter(|(id, _)| id.is_none() || *form != Form::L2Normalize);
            for (gamma, scale) in gammas {
                let betas =
                    none.into_iter().chain(vectors()).filter(|(id, _)| id.is_none() || *form == Form::LayerNorm);
                for (beta, shift) in betas {
                    if self.explains(values, normalised, scale, shift) {
                        let (form, epsilon, width) = (*form, *epsilon, self.width);
                        return Some(Norm { form, source, epsilon, width, gamma, beta });
                    }
                }
            }
        }
        None
    }

    fn explains(&self, values: &[f32], normalised: &[f64], scale: Option<&[f32]>, shift: Option<&[f32]>) -> bool {
        let at = |vector: Option<&[f32]>, column: usize, none: f64| {
            vector.and_then(|vector| vector.get(column)).map_or(none, |&value| f64::from(value))
        };
        let mut pairs = values.iter().zip(normalised).enumerate();
        values.len() == normalised.len()
            && pairs.all(|(index, (&value, &normal))| {
                let column = index % self.width;
                let scaled = normal * at(scale, column, 1.0);
                let expected = scaled + at(shift, column, 0.0);
                (f64::from(value) - expected).abs() <= 2e-5 * (1.0 + scaled.abs())
            })
    }
}
