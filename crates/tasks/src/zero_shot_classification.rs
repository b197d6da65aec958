//! zero-shot-classification: how well labels of the caller's fit a text, by a model of natural language inference.
//!
//! Body: `{"inputs": "a text" | ["several", ...], "parameters": {...}}`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `candidate_labels` | the labels: a list, or a text with commas between them |
//! | `hypothesis_template` | the sentence that `{}` makes of a label; `This example is {}.` by default |
//! | `multi_label` | `true`: each label for itself; otherwise scores of all labels sum to 1 |
//! | `truncate`, `truncation_direction` | as in feature-extraction; the text is cut, never the hypothesis |
//!
//! Reply: `[{"label", "score"}, ...]`, best first, as the hub answers today (it was `{"sequence", "labels", "scores"}`
//! once, which is still what the pipeline of transformers gives). Several texts have a list of such lists.

use centuple_text::{Text, WindowOptions};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use crate::{
    body::{Body, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::{Head, Model, entailment},
    schema::one_or_many_texts,
    scores::softmax,
    text_classification::Score,
    tokens::{Collector, Direction, Usage, check_repeated, truncation},
};

/// Most labels of a request.
pub const MAX_LABELS: usize = 1000;

/// Texts, and what they may be about.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The texts.
    pub inputs: OneOrMany<String>,
    /// Labels, and how they are tried.
    pub parameters: Parameters,
}

/// Labels, and how they are tried.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = ZeroShotClassificationParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The labels.
    #[schema(schema_with = one_or_many_texts)]
    pub candidate_labels: Option<Labels>,
    /// The sentence around a label.
    pub hypothesis_template: Option<String>,
    /// Whether several labels may hold.
    #[serde(alias = "multi_class")]
    pub multi_label: Option<bool>,
    /// Whether a text that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

/// Labels of the caller's.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels(pub Vec<String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> de::Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a list of labels, or a text with commas between them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Labels, E> {
        let labels = text.split(',').map(str::trim).filter(|label| !label.is_empty());
        Ok(Labels(labels.map(str::to_owned).collect()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Labels, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(Labels)
    }
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters } = from_json::<Body<_, _>>(body)?;
        Ok(Self { inputs, parameters })
    }

    /// Number of pairs of a text and a label.
    pub(crate) fn len(&self) -> usize {
        let labels = self.parameters.candidate_labels.as_ref().map_or(1, |labels| labels.0.len());
        self.inputs.items.len().saturating_mul(labels)
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        let Parameters { candidate_labels, hypothesis_template, multi_label, truncate, truncation_direction } =
            self.parameters;
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        if let Some(input) = self.inputs.items.iter().position(String::is_empty) {
            let reason = format!("text {input} is empty; give at least one character");
            return Err(TaskError::Parameter { name: "inputs", reason });
        }
        let labels = candidate_labels.map(|labels| labels.0).filter(|labels| !labels.is_empty());
        let Some(labels) = labels else {
            let reason = "there is no label; give at least one".into();
            return Err(TaskError::Parameter { name: "candidate_labels", reason });
        };
        if labels.len() > MAX_LABELS {
            let reason = format!("{} labels are too many; at most {MAX_LABELS} are tried", labels.len());
            return Err(TaskError::Parameter { name: "candidate_labels", reason });
        }
        let template = Template::parse(hypothesis_template.as_deref().unwrap_or("This example is {}."))?;
        let hypotheses: Vec<String> = labels.iter().map(|label| template.fill(label)).collect();
        let truncation = truncation(truncate, truncation_direction);
        let options = WindowOptions { truncation, ..WindowOptions::new(model.tokenizer.max_tokens(), 0) };
        let mut collector = Collector::new(model, None, truncation)?;
        for (input, text) in self.inputs.items.iter().enumerate() {
            check_repeated("candidate_labels", text, hypotheses.len())?;
            for hypothesis in &hypotheses {
                collector.first_window(input, Text::FullPair(text, hypothesis), &options)?;
            }
        }
        let (sequences, usage) = collector.finish();
        // A list of one text is answered as the text alone: there are clients that send and need that.
        let single = self.inputs.items.len() == 1;
        Ok((sequences, usage, Finish { labels, single, multi_label: multi_label.unwrap_or(false) }))
    }
}

/// A sentence with places for a label: `{}` or `{0}`; `{{` and `}}` are braces.
#[derive(Debug)]
struct Template {
    /// What stands before, between and behind the places; at least two parts.
    parts: Vec<String>,
}

impl Template {
    fn parse(template: &str) -> Result<Self, TaskError> {
        let wrong = |reason: &str| {
            let reason = format!("{reason}; write `{{}}` once where the label goes, as in `This text is about {{}}.`");
            TaskError::Parameter { name: "hypothesis_template", reason }
        };
        let mut parts = vec![String::new()];
        let (mut automatic, mut numbered) = (0, 0);
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(brace);
            if let Some(part) = parts.last_mut() {
                part.push_str(before);
            }
            rest = match at.as_bytes() {
                [b'{', b'{', ..] | [b'}', b'}', ..] => {
                    parts.last_mut().into_iter().for_each(|part| part.push_str(&at[..1]));
                    &at[2..]
                }
                [b'{', b'}', ..] => {
                    (automatic, parts) = (automatic + 1, [parts, vec![String::new()]].concat());
                    &at[2..]
                }
                [b'{', b'0', b'}', ..] => {
                    (numbered, parts) = (numbered + 1, [parts, vec![String::new()]].concat());
                    &at[3..]
                }
                _ => return Err(wrong("it has a brace that is no place for the label")),
            };
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(rest);
        }
        match (automatic, numbered) {
            (0, 0) => Err(wrong("it has no place for the label")),
            (1, 0) | (0, 1..) => Ok(Self { parts }),
            (_, _) => Err(wrong("it has several places for the label")),
        }
    }

    fn fill(&self, label: &str) -> String {
        self.parts.join(label)
    }
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    labels: Vec<String>,
    single: bool,
    multi_label: bool,
}

impl Finish {
    pub(crate) fn reply(self, model: &Model, outputs: &[Output]) -> OneOrMany<Vec<Score>> {
        let Head::Classification { labels, .. } = &model.card.head else {
            return OneOrMany::many(Vec::new());
        };
        let entailment = entailment(labels).unwrap_or(0);
        // Entailment is the first or the last of a model's classes, contradiction the other end.
        let contradiction = if entailment == 0 { labels.len().saturating_sub(1) } else { 0 };
        let logit = |output: &Output, class: usize| output.data.get(class).copied().unwrap_or(0.0);
        let text = |outputs: &[Output]| {
            let scores = if self.multi_label || self.labels.len() == 1 {
                let pair = |output| [logit(output, contradiction), logit(output, entailment)];
                outputs.iter().map(|output| softmax(&pair(output))[1]).collect()
            } else {
                softmax(&outputs.iter().map(|output| logit(output, entailment)).collect::<Vec<_>>())
            };
            let mut scores: Vec<Score> = self.labels.iter().cloned().zip(scores).map(Score::of).collect();
            scores.sort_by(|a, b| b.score.total_cmp(&a.score));
            scores
        };
        let items = outputs.chunks_exact(self.labels.len().max(1)).map(text).collect();
        OneOrMany { items, single: self.single }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str) -> Option<String> {
        Template::parse(template).ok().map(|template| template.fill("X"))
    }

    #[test]
    fn templates_are_those_of_python() {
        let filled = [("{}", "X"), ("a {} b", "a X b"), ("{0}{0}", "XX"), ("{{}} in {}", "{} in X"), ("{}}}", "X}")];
        for (template, expected) in filled {
            assert_eq!(fill(template).as_deref(), Some(expected), "{template}");
        }
        for template in ["", "a", "{", "}", "{} {}", "{} {0}", "{1}", "{name}", "{!r}", "{{}}", "a } {}", "é{"] {
            assert_eq!(fill(template), None, "{template}");
        }
    }
}
