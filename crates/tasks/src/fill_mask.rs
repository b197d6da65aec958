//! fill-mask: the tokens that a masked one may stand for.
//!
//! Body: `{"inputs": "a text with [MASK]" | ["several", ...], "parameters": {...}}`; how a mask is written is the
//! tokenizer's affair.
//!
//! | parameter | meaning |
//! |---|---|
//! | `top_k` | number of proposals per mask; 5 by default |
//! | `targets` | a text or a list: only these tokens are proposed. Of one that is no token the first token is taken |
//! | `truncate`, `truncation_direction` | `true`: a text that is too long is cut. By default it is an error, for its mask might go |
//!
//! Reply: `[{"score", "token", "token_str", "sequence"}, ...]`, best first; where the text has several masks, a list
//! of such lists in their order. A list of several texts has a list of such replies. `score` is a probability among
//! the whole vocabulary, also with `targets`.

use std::collections::BTreeSet;

use centuple_text::{Text, WindowOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    body::{Body, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::Model,
    schema::one_or_many_texts,
    scores::{best_by, softmax},
    tokens::{Collector, Direction, Usage, truncation},
};

/// Most tokens of all texts of a reply.
const MAX_WRITTEN_TOKENS: usize = 1 << 24;

/// Texts with masks, and what may fill them.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The texts.
    pub inputs: OneOrMany<String>,
    /// What may fill their masks.
    pub parameters: Parameters,
}

/// What may fill a mask.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = FillMaskParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Number of proposals.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// The only tokens that may be proposed.
    #[schema(schema_with = one_or_many_texts)]
    pub targets: Option<OneOrMany<String>>,
    /// Whether a text that is too long may be cut; it may not by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

/// A token in the place of a mask.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Proposal {
    /// Its probability.
    pub score: f32,
    /// Its id.
    pub token: u32,
    /// Its text.
    pub token_str: String,
    /// The whole text with it.
    pub sequence: String,
}

/// The proposals for the masks of a text: one list, or one for each of several masks.
pub type Filled = OneOrMany<Vec<Proposal>>;

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters } = from_json::<Body<_, _>>(body)?;
        Ok(Self { inputs, parameters })
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.inputs.items.len()
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        let Parameters { top_k, targets, truncate, truncation_direction } = self.parameters;
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        let vocabulary = model.card.dimension();
        let top_k = top_k.unwrap_or(5.min(vocabulary));
        if top_k == 0 || top_k > vocabulary {
            let reason = format!("{top_k} is outside of 1 to {vocabulary}, the number of tokens");
            return Err(TaskError::Parameter { name: "top_k", reason });
        }
        let Some(mask) = &model.tokenizer.special_tokens().mask else {
            let reason = "the model's tokenizer has no mask token".into();
            return Err(TaskError::Parameter { name: "inputs", reason });
        };
        let targets = targets.map(|targets| target_ids(model, &targets.items)).transpose()?;
        let mut collector = Collector::new(model, None, truncation(truncate.or(Some(false)), truncation_direction))?;
        for (input, text) in self.inputs.items.iter().enumerate() {
            if collector.masked(text, mask.id)? == 0 {
                let reason = format!("input {input} has no `{}`; put one where a token is to be found", mask.text);
                return Err(TaskError::Parameter { name: "inputs", reason });
            }
        }
        let (sequences, usage) = collector.finish();
        let tokens = |sequence: &Sequence| sequence.len().saturating_mul(sequence.selected.len()).saturating_mul(top_k);
        let tokens = sequences.iter().map(tokens).fold(0, usize::saturating_add);
        if tokens > MAX_WRITTEN_TOKENS {
            let reason = format!(
                "{top_k} proposals for each mask, each with its text, are {tokens} tokens; \
                 at most {MAX_WRITTEN_TOKENS} are written, so ask for less at once"
            );
            return Err(TaskError::Parameter { name: "top_k", reason });
        }
        // A list of one text is answered as the text alone, as in transformers.
        let single = self.inputs.items.len() == 1;
        let texts = sequences.iter().map(|sequence| (sequence.ids.clone(), sequence.selected.clone())).collect();
        Ok((sequences, usage, Finish { texts, single, top_k, targets }))
    }
}

/// Ids of targets, each once.
fn target_ids(model: &Model, targets: &[String]) -> Result<Vec<u32>, TaskError> {
    let mut ids = BTreeSet::new();
    for (input, target) in targets.iter().enumerate() {
        if let Some(id) = model.tokenizer.token_id(target) {
            ids.insert(id);
            continue;
        }
        let options = WindowOptions::new(model.tokenizer.max_tokens(), 0);
        let windows = model.tokenizer.windows(Text::Single(target), &options);
        let windows = windows.map_err(|source| TaskError::Text { input, source })?;
        let tokens = windows.iter().flat_map(|window| window.encoding.ids.iter().zip(&window.origins));
        ids.extend(tokens.filter(|(_, origin)| !origin.special).map(|(&id, _)| id).take(1));
    }
    ids.retain(|id| (*id as usize) < model.card.dimension());
    if ids.is_empty() {
        let reason = "none of them is a token; give at least one word".into();
        return Err(TaskError::Parameter { name: "targets", reason });
    }
    Ok(ids.into_iter().collect())
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Ids of each text, and the places of its masks.
    texts: Vec<(Vec<u32>, Vec<usize>)>,
    single: bool,
    top_k: usize,
    targets: Option<Vec<u32>>,
}

impl Finish {
    pub(crate) fn reply(self, model: &Model, outputs: &[Output]) -> Result<OneOrMany<Filled>, TaskError> {
        let mut items = Vec::with_capacity(self.texts.len());
        for (input, ((ids, masks), output)) in self.texts.iter().zip(outputs).enumerate() {
            let failed = |source| TaskError::Text { input, source };
            let mut lists = Vec::with_capacity(masks.len());
            for (row, &mask) in masks.iter().enumerate() {
                let scores = softmax(output.row(row).unwrap_or_default());
                let proposal = |(token, score): (u32, f32)| {
                    let sequence = with_token(model, ids, mask, token, masks.len() == 1).map_err(failed)?;
                    let token_str = model.tokenizer.decode(&[token], false).map_err(failed)?;
                    Ok(Proposal { score, token, token_str, sequence })
                };
                lists.push(self.best(&scores).into_iter().map(proposal).collect::<Result<Vec<_>, TaskError>>()?);
            }
            let single = lists.len() == 1;
            items.push(OneOrMany { items: lists, single });
        }
        Ok(OneOrMany { items, single: self.single })
    }

    /// The best tokens and their scores.
    fn best(&self, scores: &[f32]) -> Vec<(u32, f32)> {
        let score = |token: u32| scores.get(token as usize).copied().unwrap_or(0.0);
        let token = |place: usize| self.targets.as_ref().map_or(place as u32, |targets| targets[place]);
        let count = self.targets.as_ref().map_or(scores.len(), Vec::len);
        let places = best_by(count, self.top_k, |place| score(token(place)));
        places.into_iter().map(|place| (token(place), score(token(place)))).collect()
    }
}

/// The text of `ids` with a token in the place of a mask; other masks remain to be seen.
fn with_token(
    model: &Model,
    ids: &[u32],
    mask: usize,
    token: u32,
    only_mask: bool,
) -> Result<String, centuple_text::TextError> {
    let mut ids = ids.to_vec();
    if let Some(id) = ids.get_mut(mask) {
        *id = token;
    }
    if let Some(pad) = &model.tokenizer.special_tokens().pad {
        ids.retain(|id| *id != pad.id);
    }
    model.tokenizer.decode(&ids, only_mask)
}
