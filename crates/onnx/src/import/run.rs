//! The order of nodes, branches and functions.

use std::collections::{HashMap, HashSet};

use super::attributes::{Arguments, Call};
use super::problem::Problem;
use super::value::Value;
use super::{Importer, ops};
use crate::OnnxError;
use crate::error::shown;
use crate::file::domain;
use crate::proto::{FunctionProto, GraphProto, NodeProto};

/// Functions and branches within each other.
const DEPTH: usize = 32;

/// Versions of the operators by domain.
pub(super) type Opsets<'f> = HashMap<&'f str, i64>;

/// Values by name, and those of the graph around a branch.
pub(super) struct Scope<'f, 'p> {
    values: HashMap<&'f str, Value>,
    around: Option<&'p Scope<'f, 'p>>,
}

impl<'f, 'p> Scope<'f, 'p> {
    pub(super) fn new(around: Option<&'p Scope<'f, 'p>>) -> Scope<'f, 'p> {
        Scope { values: HashMap::new(), around }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(value) = here.values.get(name) {
                return Some(value);
            }
            scope = here.around;
        }
        None
    }

    /// Names a value; `false` where the name is taken.
    pub(super) fn insert(&mut self, name: &'f str, value: Value) -> bool {
        self.values.insert(name, value).is_none()
    }
}

/// What nodes are imported under.
#[derive(Clone, Copy)]
struct Frame<'f, 'a> {
    opsets: &'a Opsets<'f>,
    arguments: &'a Arguments<'f>,
    depth: usize,
}

impl<'f> Importer<'f> {
    /// Imports the nodes of the file's graph that the wanted values need, and returns those.
    pub(super) fn run_graph(
        &mut self,
        graph: &'f GraphProto,
        mut scope: Scope<'f, '_>,
        opsets: &Opsets<'f>,
        wanted: &[&'f str],
    ) -> Result<Vec<Value>, OnnxError> {
        let frame = Frame { opsets, arguments: &Arguments::new(), depth: 0 };
        self.run(&graph.node, &mut scope, frame, wanted)
    }

    fn run(
        &mut self,
        nodes: &'f [NodeProto],
        scope: &mut Scope<'f, '_>,
        frame: Frame<'f, '_>,
        wanted: &[&'f str],
    ) -> Result<Vec<Value>, OnnxError> {
        let order = self.order(nodes, scope, wanted, frame.opsets)?;
        let mut readers: HashMap<&str, usize> = HashMap::new();
        for name in order.iter().flat_map(|&index| reads(&nodes[index])).chain(wanted.iter().copied()) {
            *readers.entry(name).or_default() += 1;
        }
        for index in order {
            let node = &nodes[index];
            let results = self.node_of(node, scope, frame)?;
            for (name, value) in node.output.iter().zip(results) {
                scope.insert(name, value);
            }
            // Weights on their way to the graph would otherwise be held in each form that they had.
            for name in reads(node) {
                if let Some(count) = readers.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        scope.values.remove(name);
                    }
                }
            }
        }
        let missing = |name: &&str| self.file.problem(format!("nothing yields the output `{}`", shown(name)));
        wanted.iter().map(|name| scope.get(name).cloned().ok_or_else(|| missing(name))).collect()
    }

    /// The nodes that the wanted values need, each behind those that it reads.
    fn order(
        &self,
        nodes: &'f [NodeProto],
        scope: &Scope<'f, '_>,
        wanted: &[&'f str],
        opsets: &Opsets,
    ) -> Result<Vec<usize>, OnnxError> {
        let wrong =
            |node: &NodeProto, problem: String| Err(self.failure(node, version(opsets, domain(&node.domain)), problem));
        let mut makers: HashMap<&str, usize> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if makers.insert(name, index).is_some() || scope.values.contains_key(name.as_str()) {
                    return Err(self.file.problem(format!("two values are called `{}`", shown(name))));
                }
            }
        }
        let mut order = Vec::new();
        let mut state = vec![State::New; nodes.len()];
        let mut stack: Vec<usize> = wanted.iter().filter_map(|name| makers.get(name).copied()).rev().collect();
        while let Some(&index) = stack.last() {
            let node = &nodes[index];
            match state[index] {
                State::Done => {
                    stack.pop();
                }
                State::Open => {
                    state[index] = State::Done;
                    order.push(index);
                    stack.pop();
                }
                State::New => {
                    state[index] = State::Open;
                    for name in reads(node) {
                        match makers.get(name) {
                            Some(&maker) if state[maker] == State::New => stack.push(maker),
                            Some(&maker) if state[maker] == State::Open => {
                                return wrong(node, "it needs its own result: the graph is cyclic".to_owned());
                            }
                            Some(_) => {}
                            None if scope.get(name).is_some() => {}
                            None => {
                                let problem = format!("it reads `{}`, which nothing yields", shown(name));
                                return wrong(node, problem);
                            }
                        }
                    }
                }
            }
        }
        Ok(order)
    }

    /// The results of one node.
    fn node_of(
        &mut self,
        node: &'f NodeProto,
        scope: &Scope<'f, '_>,
        frame: Frame<'f, '_>,
    ) -> Result<Vec<Value>, OnnxError> {
        let domain = domain(&node.domain);
        if frame.depth > DEPTH {
            return Err(self.failure(
                node,
                version(frame.opsets, domain),
                format!("functions and branches are nested more than {DEPTH} deep"),
            ));
        }
        let opset = version(frame.opsets, domain);
        let failure = |importer: &Self, Problem(problem)| importer.failure(node, opset, problem);
        self.calls = self.calls.checked_sub(1).ok_or_else(|| {
            self.file.problem("it has more than 500000 nodes, those of functions counted each time".to_owned())
        })?;
        self.name =
            if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
        let operand = |name: &String| if name.is_empty() { None } else { scope.get(name).cloned() };
        let call = Call::new(node, opset, node.input.iter().map(operand).collect(), frame.arguments);
        let key = (domain, node.op_type.as_str(), node.overload.as_str());
        if let Some(&function) = self.functions.get(&key) {
            return self.inlined(node, function, &call, frame.depth);
        }
        if domain.is_empty() && node.op_type == "If" {
            return self.branch(node, &call, scope, frame);
        }
        let Some(import) = ops::find(domain, &node.op_type) else {
            return Err(OnnxError::Operator {
                file: self.file.name().to_owned(),
                op: operator(node),
                node: shown(&self.name),
                opset,
            });
        };
        import(self, &call).map_err(|problem| failure(self, problem))
    }

    /// The branch of an `If` whose condition is known.
    fn branch(
        &mut self,
        node: &'f NodeProto,
        call: &Call<'f>,
        scope: &Scope<'f, '_>,
        frame: Frame<'f, '_>,
    ) -> Result<Vec<Value>, OnnxError> {
        let opset = call.opset;
        let failure = |importer: &Self, Problem(problem)| importer.failure(node, opset, problem);
        let condition = call.operand(0).and_then(|condition| match condition {
            Value::Constant(constant) => {
                constant.scalar().ok_or_else(|| Problem("its condition is no scalar".to_owned()))
            }
            Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                Err(Problem("its condition depends on the texts".to_owned()))
            }
        });
        let branch =
            if condition.map_err(|problem| failure(self, problem))? != 0.0 { "then_branch" } else { "else_branch" };
        let graph = call.graph(branch).map_err(|problem| failure(self, problem))?;
        let mut inner = Scope::new(Some(scope));
        self.initializers(graph, &mut inner)?;
        let wanted: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        self.run(&graph.node, &mut inner, Frame { depth: frame.depth + 1, ..frame }, &wanted)
    }

    /// A call of a local function, as the function's nodes.
    fn inlined(
        &mut self,
        node: &'f NodeProto,
        function: &'f FunctionProto,
        call: &Call<'f>,
        depth: usize,
    ) -> Result<Vec<Value>, OnnxError> {
        let mut scope = Scope::new(None);
        for (index, name) in function.input.iter().enumerate() {
            if let Some(value) = call.optional(index) {
                scope.insert(name, value.clone());
            }
        }
        let opsets: Opsets = function.opset_import.iter().map(|set| (domain(&set.domain), set.version)).collect();
        let mut arguments: Arguments =
            function.attribute_proto.iter().map(|attribute| (attribute.name.as_str(), attribute)).collect();
        arguments.extend(call.arguments());
        let wanted: Vec<&str> = function.output.iter().take(node.output.len()).map(String::as_str).collect();
        self.run(
            &function.node,
            &mut scope,
            Frame { opsets: &opsets, arguments: &arguments, depth: depth + 1 },
            &wanted,
        )
    }

    /// Puts a graph's constants into its scope.
    pub(super) fn initializers(&mut self, graph: &'f GraphProto, scope: &mut Scope<'f, '_>) -> Result<(), OnnxError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
            return Err(self
                .file
                .problem(format!("the initializer `{}` is sparse, which is not supported", shown(name))));
        }
        let read: HashSet<&str> = graph.node.iter().flat_map(reads).collect();
        let results: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        for tensor in &graph.initializer {
            if !read.contains(tensor.name.as_str()) && !results.contains(tensor.name.as_str()) {
                continue;
            }
            let constant = self.file.constant(tensor)?.named(Some(shown(&tensor.name).into()));
            if !scope.insert(&tensor.name, Value::Constant(constant)) {
                return Err(self.file.problem(format!("two values are called `{}`", shown(&tensor.name))));
            }
        }
        Ok(())
    }

    fn failure(&self, node: &NodeProto, opset: i64, problem: String) -> OnnxError {
        let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        OnnxError::Node {
            file: self.file.name().to_owned(),
            node: shown(name.map_or("", String::as_str)),
            op: operator(node),
            opset,
            problem,
        }
    }
}

/// The version of a domain's operators; of one that the file doesn't list, that of ONNX's own.
fn version(opsets: &Opsets, domain: &str) -> i64 {
    opsets.get(domain).or_else(|| opsets.get("")).copied().unwrap_or(0)
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// Domain and name of a node's operator.
fn operator(node: &NodeProto) -> String {
    match domain(&node.domain) {
        "" => shown(&node.op_type),
        domain => format!("{}.{}", shown(domain), shown(&node.op_type)),
    }
}

/// The values that a node reads, those that its branches take from around them included.
fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for graph in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
        let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        let constants = graph.initializer.iter().map(|tensor| tensor.name.as_str());
        let inputs = graph.input.iter().map(|input| input.name.as_str());
        let own: HashSet<&str> = made.chain(constants).chain(inputs).collect();
        let results = graph.output.iter().map(|output| output.name.as_str());
        let taken = graph.node.iter().flat_map(reads).chain(results);
        names.extend(taken.filter(|name| !own.contains(name) && !name.is_empty()));
    }
    names
}
