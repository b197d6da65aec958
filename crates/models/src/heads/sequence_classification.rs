//! Classification by the first token, as `…ForSequenceClassification`.

use std::collections::BTreeMap;

use centuple_graph::{NodeId, Op, Pooling};
use serde::Deserialize;

use super::{Head, OUTPUT, Problem};
use crate::ModelError;
use crate::builder::Builder;
use crate::config::Config;
use crate::families::Classifier;

/// The fields of `PretrainedConfig` about labels.
#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    id2label: Option<BTreeMap<String, String>>,
    #[serde(default)]
    problem_type: Option<String>,
}

/// Appends a classifier to the last hidden state `[Tokens, width]`.
pub(crate) fn sequence_classification(
    classifier: &Classifier,
    config: Config,
    builder: &mut Builder,
    hidden: NodeId,
    width: usize,
) -> Result<Head, ModelError> {
    let mut x = builder.graph.push("first_token", Op::Pool(Pooling::Cls), &[hidden])?;
    if let Some((name, activation)) = classifier.pooler {
        let name = builder.base(name);
        let dense = builder.linear(x, &name, [width, width])?;
        x = builder.graph.push(format!("{name}.activation"), Op::Activation(activation), &[dense])?;
    }
    let fields: Labels = config.parse()?;
    let weight = format!("{}.weight", classifier.output);
    let rows = builder.shape(&weight).and_then(|shape| shape.first()).copied();
    let labels = labels(&fields, config, rows)?;
    let logits = builder.linear(x, classifier.output, [labels.len(), width])?;
    builder.graph.output(OUTPUT, logits);
    let problem = problem(&fields, config, labels.len())?;
    Ok(Head::Classification { labels, problem })
}

/// Names of the logits: `id2label`, or `LABEL_0`, `LABEL_1`, ... as transformers calls unnamed ones.
fn labels(fields: &Labels, config: Config, rows: Option<usize>) -> Result<Vec<String>, ModelError> {
    let Some(names) = &fields.id2label else {
        return Ok((0..rows.unwrap_or(2)).map(|index| format!("LABEL_{index}")).collect());
    };
    let named = |index: usize| names.get(&index.to_string()).cloned();
    let labels: Option<Vec<String>> = (0..names.len()).map(named).collect();
    let labels = labels.ok_or_else(|| config.error("the keys of `id2label` are not 0, 1, 2, ..."))?;
    if labels.is_empty() {
        return Err(config.error("`id2label` is empty"));
    }
    Ok(labels)
}

/// What the logits mean, by the rules of transformers' `TextClassificationPipeline`.
fn problem(fields: &Labels, config: Config, labels: usize) -> Result<Problem, ModelError> {
    match fields.problem_type.as_deref() {
        Some("regression") => Ok(Problem::Regression),
        Some("multi_label_classification") => Ok(Problem::MultiLabel),
        None | Some("single_label_classification") if labels == 1 => Ok(Problem::MultiLabel),
        None | Some("single_label_classification") => Ok(Problem::SingleLabel),
        Some(other) => Err(config.error(format!(
            "`problem_type`: \"{other}\" is not supported; single_label_classification, multi_label_classification \
             and regression are"
        ))),
    }
}
