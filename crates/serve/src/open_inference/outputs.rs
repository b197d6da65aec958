//! What is answered: which outputs, under which names, of which values.

use std::{iter, time::Duration};

use centuple_tasks::{Head, Model, Output, TaskError};
use serde::{Serialize, Serializer};

use super::{describe::native_output, request::InferRequest};
use crate::service::{Failure, Served, Service, Work};

/// What a reply has.
pub(crate) struct Plan {
    /// The version of the model that answers.
    pub(crate) version: String,
    /// The request's id.
    pub(crate) id: Option<String>,
    /// How long the request may take.
    pub(crate) timeout: Option<Duration>,
    outputs: Vec<Planned>,
    /// Tokens that rows are padded to, at least.
    length: usize,
}

struct Planned {
    name: String,
    binary: bool,
    /// Number of classes to name, best first; none: the values.
    classes: Option<usize>,
}

fn invalid(message: String) -> TaskError {
    TaskError::Shape { field: "outputs".into(), message }
}

impl Plan {
    /// Checks a request; what is left to do of it, and what to answer then.
    pub(crate) fn new(service: &Service, request: InferRequest, served: &Served) -> Result<(Self, Work), Failure> {
        // Before anything is made of each of them.
        service.check_inputs(request.rows())?;
        let model = &served.model;
        let mut plan = Self::of(&request, model)?;
        plan.version.clone_from(&served.version);
        plan.id.clone_from(&request.id);
        plan.timeout = request.timeout;
        Ok((plan, request.into_work(model)?))
    }

    /// Checks what a request asks for.
    fn of(request: &InferRequest, model: &Model) -> Result<Self, TaskError> {
        let native = native_output(&model.card.head);
        let length = request.padded_length();
        let default = if length.is_some() { native } else { "output" };
        let mut outputs: Vec<Planned> = Vec::new();
        for wanted in &request.outputs {
            let name = wanted.name.as_str();
            if name != native && name != "output" {
                let id = &model.card.id;
                return Err(invalid(format!("model `{id}` has no output `{name}`; it has `output`, or `{native}`")));
            }
            if outputs.iter().any(|other| other.name == name) {
                return Err(invalid(format!("output `{name}` is asked for twice")));
            }
            if wanted.shared_memory {
                return Err(invalid(format!("output `{name}`: shared memory is not supported")));
            }
            let classes = classes(name, wanted.classification, model)?;
            outputs.push(Planned { name: name.to_owned(), binary: wanted.binary, classes });
        }
        if outputs.is_empty() {
            outputs.push(Planned { name: default.into(), binary: request.binary, classes: None });
        }
        Ok(Self { version: String::new(), id: None, timeout: None, outputs, length: length.unwrap_or(0) })
    }

    /// What the model has given, as it was asked for.
    pub(crate) fn tensors<'a>(&'a self, model: &'a Model, outputs: &'a [Output]) -> Vec<OutputTensor<'a>> {
        let rows = Rows::new(outputs, &model.card.head, self.length);
        self.outputs.iter().map(|planned| planned.tensor(rows, model)).collect()
    }
}

/// One output of a reply.
pub(crate) struct OutputTensor<'a> {
    pub(crate) name: &'a str,
    /// Whether it was asked for as bytes.
    pub(crate) binary: bool,
    pub(crate) datatype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data<'a>,
}

/// The values of an output; serialises as a list.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    Values(Rows<'a>),
    Names(Vec<String>),
}

impl Data<'_> {
    /// Adds the values in little-endian order, a name after its length in 4 bytes.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Data::Values(rows) => bytes.extend(rows.values().flat_map(f32::to_le_bytes)),
            Data::Names(names) => names.iter().for_each(|name| {
                bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
                bytes.extend_from_slice(name.as_bytes());
            }),
        }
    }
}

/// The parameter `classification`; 0 means the same as none.
fn classes(output: &str, wanted: Option<i64>, model: &Model) -> Result<Option<usize>, TaskError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let wanted = usize::try_from(wanted)
        .map_err(|_| invalid(format!("output `{output}`: `classification` is negative; give the number of classes")))?;
    if wanted > 0 && is_by_token(&model.card.head) {
        let message = format!("output `{output}`: `classification` is for a model that gives one row per text");
        return Err(invalid(message));
    }
    Ok((wanted > 0).then_some(wanted))
}

/// Whether the model gives a row per token.
pub(super) fn is_by_token(head: &Head) -> bool {
    match head {
        Head::TokenFeatures { .. }
        | Head::TokenClassification { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. }
        | Head::LateInteraction { .. } => true,
        Head::SentenceEmbedding(_) | Head::Classification { .. } | Head::SparseEmbedding { .. } => false,
    }
}

/// Outputs as one tensor.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    outputs: &'a [Output],
    by_token: bool,
    /// Rows of each, where they are by token.
    length: usize,
    columns: usize,
}

impl<'a> Rows<'a> {
    fn new(outputs: &'a [Output], head: &Head, length: usize) -> Self {
        let by_token = is_by_token(head);
        let longest = outputs.iter().map(|output| output.rows).max().unwrap_or(0);
        Self { outputs, by_token, length: if by_token { longest.max(length) } else { 1 }, columns: head.columns() }
    }

    fn shape(&self) -> Vec<usize> {
        match self.by_token {
            true => vec![self.outputs.len(), self.length, self.columns],
            false => vec![self.outputs.len(), self.columns],
        }
    }

    /// All values in order; what is padded is 0.
    fn values(&self) -> impl Iterator<Item = f32> + use<'a> {
        let Self { outputs, length, columns, .. } = *self;
        let each = length * columns;
        outputs.iter().flat_map(move |output| {
            let padding = each.saturating_sub(output.data.len());
            output.data.iter().copied().chain(iter::repeat_n(0.0, padding))
        })
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.values())
    }
}

impl Planned {
    fn tensor<'a>(&'a self, rows: Rows<'a>, model: &Model) -> OutputTensor<'a> {
        let (datatype, shape, data) = match self.classes {
            None => ("FP32", rows.shape(), Data::Values(rows)),
            Some(classes) => {
                let classes = classes.min(rows.columns);
                let names = rows.outputs.iter().flat_map(|output| best(output, model, classes)).collect();
                ("BYTES", vec![rows.outputs.len(), classes], Data::Names(names))
            }
        };
        OutputTensor { name: &self.name, binary: self.binary, datatype, shape, data }
    }
}

/// The best classes of a row as `value:index`, and `:label` where the model has labels.
fn best(output: &Output, model: &Model, classes: usize) -> Vec<String> {
    let labels = match &model.card.head {
        Head::Classification { labels, .. } => labels.as_slice(),
        Head::TokenFeatures { .. }
        | Head::SentenceEmbedding(_)
        | Head::TokenClassification { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. }
        | Head::SparseEmbedding { .. }
        | Head::LateInteraction { .. } => &[],
    };
    let mut places: Vec<usize> = (0..output.data.len()).collect();
    places.sort_by(|a, b| output.data[*b].total_cmp(&output.data[*a]));
    let name = |place: usize| match labels.get(place) {
        Some(label) => format!("{}:{place}:{label}", output.data[place]),
        None => format!("{}:{place}", output.data[place]),
    };
    places.into_iter().take(classes).map(name).collect()
}
