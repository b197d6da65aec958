//! A file as a graph of primitive ops on `[Sequences, Sequence]`.
//!
//! The graph's inputs are those of a native model, `input_ids [Tokens]` and `token_type_ids [Tokens]`; the file's own inputs
//! are made of them. All numbers of the graph are f32, truth values 0 and 1. Arithmetic on shapes never reaches it: sizes
//! are [`Dim`]s here.

mod attention;
mod attributes;
mod cast;
mod contrib;
mod control;
mod dims;
mod einsum;
mod elementwise;
mod fold;
mod functions;
mod gather;
mod inputs;
mod marked;
mod matmul;
mod norm;
mod numbers;
mod ops;
mod outputs;
mod problem;
mod quantized;
mod reduce;
mod run;
mod shape;
mod structure;
mod value;

use std::collections::HashMap;

use centuple_graph::{Graph, NodeId};
use centuple_tensor::{DType, Dim, Shape};

use crate::file::{Element, File};
use crate::{OnnxError, error};
use problem::{Problem, Result, problem};

/// Versions of ONNX's own operators that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 11..=26;
/// Applications of operators, those of inlined functions counted each time.
const CALLS: usize = 500_000;
/// Memory that folding constants may take besides a multiple of the file's size.
const FOLDED: usize = 256 << 20;
/// That multiple: codes of 4 bits become numbers of 32, in some steps.
const FACTOR: usize = 48;

/// How a file is imported.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The outputs that are wanted, by name; all if there are none.
    pub outputs: Vec<String>,
}

/// A file that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Inputs `input_ids [Tokens]` i64 and, where the file has them, `token_type_ids [Tokens]` i64.
    pub graph: Graph,
    /// What the graph's outputs are, in their order.
    pub outputs: Vec<Output>,
    /// Rows of the table that the ids are looked up in.
    pub vocabulary: Option<usize>,
    /// Rows of the table that the token types are looked up in.
    pub token_types: Option<usize>,
    /// Tokens of the longest sequence that the file has tables for, as far as that shows in their slices.
    pub longest: Option<usize>,
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// Version of ONNX's own operators.
    pub opset: i64,
    /// What was left out or is computed otherwise than the file says.
    pub notes: Vec<String>,
}

/// An output of an imported graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What its first dimension counts.
    pub over: Over,
    /// Sizes behind that; one number has none.
    pub shape: Shape,
}

/// What the rows of an output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Tokens: `[Tokens, ...]`.
    Tokens,
    /// Sequences: `[Sequences, ...]`.
    Sequences,
}

/// Imports a file.
///
/// # Errors
/// The file is no sound model, uses an operator in a way that is not supported, or has inputs that are not a transformer
/// encoder's. The message names the node.
pub fn import(file: &File, options: &ImportOptions) -> std::result::Result<Imported, OnnxError> {
    let opsets = file.opsets();
    let graph = file.graph()?;
    let Some(opset) = opsets.get("").copied() else {
        return Err(file.problem("it doesn't say which version of ONNX's operators it uses".to_owned()));
    };
    if !OPSETS.contains(&opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return Err(file.problem(format!(
            "it uses opset {opset}; {first} to {last} are read, so export it again with one of these"
        )));
    }
    let mut importer = Importer::new(file);
    let scope = importer.scope(graph)?;
    let wanted = outputs::wanted(file, graph, options)?;
    let values = importer.run_graph(graph, scope, &opsets, &wanted)?;
    let outputs = importer.outputs(&wanted, &values)?;
    let model = file.model();
    let producer = format!("{} {}", error::shown(&model.producer_name), error::shown(&model.producer_version));
    let graph = outputs::pruned(&importer.graph).map_err(|error| file.problem(error.to_string()))?;
    Ok(Imported {
        graph,
        outputs,
        vocabulary: importer.tables.vocabulary,
        token_types: importer.tables.token_types,
        longest: importer.tables.longest,
        producer: producer.trim().to_owned(),
        opset,
        notes: importer.notes,
    })
}

/// What is known while a file is imported.
struct Importer<'f> {
    file: &'f File,
    graph: Graph,
    /// Name of the node at hand, for what it becomes.
    name: String,
    /// Local functions by domain, name and overload.
    functions: HashMap<(&'f str, &'f str, &'f str), &'f crate::proto::FunctionProto>,
    constants: HashMap<ConstantKey, NodeId>,
    /// Sizes as numbers of the graph.
    extents: HashMap<Dim, NodeId>,
    tables: Tables,
    notes: Vec<String>,
    calls: usize,
    /// Whether a node depends on the batch, by index.
    varies: Vec<bool>,
    /// Operations on constants alone.
    work: u64,
    /// Bytes that folding constants has taken.
    folded: usize,
}

/// A constant of the graph by its memory.
type ConstantKey = ((usize, usize), DType, Vec<usize>);

/// The inputs that are ids, and the sizes of their tables.
#[derive(Default)]
struct Tables {
    /// The packed ids, and the padded ones as numbers.
    packed_ids: Option<NodeId>,
    ids: Option<NodeId>,
    types: Option<NodeId>,
    vocabulary: Option<usize>,
    token_types: Option<usize>,
    longest: Option<usize>,
}

impl<'f> Importer<'f> {
    fn new(file: &'f File) -> Importer<'f> {
        let functions = file.model().functions.iter();
        let key = |function: &'f crate::proto::FunctionProto| {
            (crate::file::domain(&function.domain), function.name.as_str(), function.overload.as_str())
        };
        Importer {
            file,
            graph: Graph::new(),
            name: String::new(),
            functions: functions.map(|function| (key(function), function)).collect(),
            constants: HashMap::new(),
            extents: HashMap::new(),
            tables: Tables::default(),
            notes: Vec::new(),
            calls: CALLS,
            varies: Vec::new(),
            work: 0,
            folded: 0,
        }
    }

    /// Notes something once.
    fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Sequences of more than `tokens` tokens are not imported rightly.
    fn limit(&mut self, tokens: usize) {
        self.tables.longest = Some(self.tables.longest.map_or(tokens, |known| known.min(tokens)));
    }

    /// Takes memory for a constant that is about to be made.
    fn reserve(&mut self, shape: &[usize], element: Element) -> Result<()> {
        let bytes = shape.iter().try_fold(element.storage().size(), |bytes, &dim| bytes.checked_mul(dim));
        let total = bytes.and_then(|bytes| self.folded.checked_add(bytes));
        let limit = FOLDED.saturating_add(self.file.length().saturating_mul(FACTOR));
        self.folded = total
            .filter(|&total| total <= limit)
            .ok_or_else(|| problem("constants that take far more memory than the file's size allows for"))?;
        Ok(())
    }
}
