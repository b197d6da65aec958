//! The reply of `infer`: which outputs, under which names, in JSON or as bytes.

use std::iter;

use centuple_tasks::{Head, Model, Output, TaskError};
use serde::{Serialize, Serializer};

use super::{VERSION, describe::native_output, request::InferRequest};
use crate::service::Written;

/// What a reply has.
pub(super) struct Plan {
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
    /// Checks what a request asks for.
    pub(super) fn new(request: &InferRequest, model: &Model) -> Result<Self, TaskError> {
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
            let parameters = wanted.parameters.as_ref();
            if parameters.is_some_and(|parameters| parameters.shared_memory_region.is_some()) {
                return Err(invalid(format!("output `{name}`: shared memory is not supported")));
            }
            let binary = parameters.and_then(|parameters| parameters.binary_data).unwrap_or(request.binary);
            let classes = classes(name, parameters.and_then(|parameters| parameters.classification), model)?;
            outputs.push(Planned { name: name.to_owned(), binary, classes });
        }
        if outputs.is_empty() {
            outputs.push(Planned { name: default.into(), binary: request.binary, classes: None });
        }
        Ok(Self { outputs, length: length.unwrap_or(0) })
    }

    /// Writes a reply.
    pub(super) fn write(&self, name: &str, id: Option<&str>, model: &Model, outputs: &[Output]) -> Written {
        let rows = Rows::new(outputs, &model.card.head, self.length);
        let mut binary = Vec::new();
        let tensors = self.outputs.iter().map(|planned| planned.write(&rows, model, &mut binary)).collect();
        let reply = Reply { model_name: name, model_version: VERSION, id, outputs: tensors };
        let mut body = serde_json::to_vec(&reply).unwrap_or_default();
        let json = self.outputs.iter().any(|planned| planned.binary).then_some(body.len());
        body.append(&mut binary);
        Written { body, json }
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
        | Head::LateInteraction { .. } => true,
        Head::SentenceEmbedding(_) | Head::Classification { .. } | Head::SparseEmbedding { .. } => false,
    }
}

/// Outputs as one tensor.
#[derive(Clone, Copy)]
struct Rows<'a> {
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
    fn values(self) -> impl Iterator<Item = f32> + 'a {
        let each = self.length * self.columns;
        self.outputs.iter().flat_map(move |output| {
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
    fn write<'a>(&'a self, rows: &Rows<'a>, model: &Model, binary: &mut Vec<u8>) -> Tensor<'a> {
        let start = binary.len();
        let (datatype, shape, data) = match self.classes {
            None => {
                if self.binary {
                    binary.extend(rows.values().flat_map(f32::to_le_bytes));
                }
                ("FP32", rows.shape(), Data::Values(*rows))
            }
            Some(classes) => {
                let classes = classes.min(rows.columns);
                let names: Vec<_> = rows.outputs.iter().flat_map(|output| best(output, model, classes)).collect();
                if self.binary {
                    for name in &names {
                        binary.extend_from_slice(&(name.len() as u32).to_le_bytes());
                        binary.extend_from_slice(name.as_bytes());
                    }
                }
                ("BYTES", vec![rows.outputs.len(), classes], Data::Names(names))
            }
        };
        let (data, parameters) = match self.binary {
            true => (None, Some(Parameters { binary_data_size: binary.len() - start })),
            false => (Some(data), None),
        };
        Tensor { name: &self.name, datatype, shape, parameters, data }
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

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Values(Rows<'a>),
    Names(Vec<String>),
}
