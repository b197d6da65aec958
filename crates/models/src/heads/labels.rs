//! Names of logits, and what they mean.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::Problem;
use crate::ModelError;
use crate::config::Config;

/// The fields of `PretrainedConfig` about labels.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    id2label: Option<BTreeMap<String, String>>,
    #[serde(default)]
    problem_type: Option<String>,
}

/// Names of `logits` logits: `id2label`, or `LABEL_0`, `LABEL_1`, ... as transformers calls unnamed ones.
pub(super) fn labels(config: Config, logits: usize) -> Result<Vec<String>, ModelError> {
    let fields: Fields = config.parse()?;
    let unnamed = |index: usize| format!("LABEL_{index}");
    let Some(names) = &fields.id2label else { return Ok((0..logits).map(unnamed).collect()) };
    let named = |index: usize| names.get(&index.to_string()).cloned();
    let labels: Option<Vec<String>> = (0..names.len()).map(named).collect();
    let labels = labels.ok_or_else(|| config.error("the keys of `id2label` are not 0, 1, 2, ..."))?;
    if labels.is_empty() {
        return Err(config.error("`id2label` is empty"));
    }
    if labels.len() == logits {
        return Ok(labels);
    }
    // Configurations that were never told of their labels say two of these.
    if labels.iter().enumerate().all(|(index, label)| *label == unnamed(index)) {
        return Ok((0..logits).map(unnamed).collect());
    }
    Err(config.error(format!("`id2label` names {} labels, but the classifier has {logits} rows", labels.len())))
}

/// What the logits mean, by the rules of transformers' `TextClassificationPipeline`.
pub(super) fn problem(config: Config, logits: usize) -> Result<Problem, ModelError> {
    let fields: Fields = config.parse()?;
    match fields.problem_type.as_deref() {
        Some("regression") => Ok(Problem::Regression),
        Some("multi_label_classification") => Ok(Problem::MultiLabel),
        None | Some("single_label_classification") if logits == 1 => Ok(Problem::MultiLabel),
        None | Some("single_label_classification") => Ok(Problem::SingleLabel),
        Some(other) => Err(config.error(format!(
            "`problem_type`: \"{other}\" is not supported; single_label_classification, multi_label_classification \
             and regression are"
        ))),
    }
}

/// Whether the configuration of a cross-encoder (sentence-transformers) names the identity as what makes scores of its
/// logits.
pub(crate) fn ranks_by_logit(config: Config) -> Result<bool, ModelError> {
    let settings = config.value.get("sentence_transformers").and_then(|settings| settings.get("activation_fn"));
    let named = settings.or_else(|| config.value.get("sbert_ce_default_activation_function"));
    match named.and_then(Value::as_str).map(|class| class.rsplit('.').next().unwrap_or(class)) {
        None | Some("Sigmoid") => Ok(false),
        Some("Identity") => Ok(true),
        Some(other) => {
            Err(config.error(format!("`activation_fn`: \"{other}\" is not supported; Sigmoid and Identity are")))
        }
    }
}
