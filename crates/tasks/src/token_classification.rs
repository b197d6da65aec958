//! token-classification: the entities of texts.
//!
//! Body: `{"inputs": "a text" | ["several", ...], "parameters": {...}}`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `aggregation_strategy` | `none`: every token for itself; `simple` (default, as on the hub): neighbours of one entity together; `first`, `average`, `max`: words get one entity before that, by their first token, their mean or their surest token |
//! | `ignore_labels` | labels that are left out; `["O"]` by default |
//! | `stride` | reads a text that is too long in windows that share so many tokens; absent: the text is cut |
//! | `truncate`, `truncation_direction` | as in feature-extraction |
//!
//! Reply: `[{"entity_group", "score", "word", "start", "end"}, ...]`, a list of these for a list of texts. `start` and
//! `end` count characters (Unicode scalar values). With `none` it is `entity` instead of `entity_group`, and `index` is
//! the token's place. All numbers and words are those of transformers' pipeline.

use centuple_text::{Text, Tokenizer, WindowOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    body::{Body, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::{Head, Model},
    scores::{largest, softmax},
    tokens::{Collector, Direction, Usage, characters, truncation},
};

/// Texts, and how their entities are found.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The texts.
    pub inputs: OneOrMany<String>,
    /// How.
    pub parameters: Parameters,
}

/// How entities are found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = TokenClassificationParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// How tokens become entities.
    pub aggregation_strategy: Option<Strategy>,
    /// Labels that are left out.
    pub ignore_labels: Option<Vec<String>>,
    /// Tokens that windows share.
    pub stride: Option<usize>,
    /// Whether a text that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

/// How tokens become entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = AggregationStrategy)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// They don't.
    None,
    /// Neighbours of one entity are one.
    #[default]
    Simple,
    /// A word is what its first token is.
    First,
    /// A word is what its tokens are on average.
    Average,
    /// A word is what its surest token is.
    Max,
}

/// A token, or several that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Entity {
    /// The label of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The label of a group, without `B-` or `I-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_group: Option<String>,
    /// Probability of the label.
    pub score: f32,
    /// Place of the token among the tokens of its window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The text of its tokens, which may differ from the input: in case, accents and spaces.
    pub word: String,
    /// First character.
    pub start: usize,
    /// The character behind the last one.
    pub end: usize,
}

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
        let Parameters { aggregation_strategy, ignore_labels, stride, truncate, truncation_direction } =
            self.parameters;
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        let strategy = aggregation_strategy.unwrap_or_default();
        let limit = model.tokenizer.max_tokens();
        if stride.is_some_and(|stride| stride >= limit) {
            let reason = format!("a window has {limit} tokens, so fewer must be shared");
            return Err(TaskError::Parameter { name: "stride", reason });
        }
        if stride.is_some() && strategy == Strategy::None {
            let reason = "tokens of overlapping windows are not put together by the strategy `none`; \
                          choose another `aggregation_strategy`"
                .into();
            return Err(TaskError::Parameter { name: "stride", reason });
        }
        let truncation = truncation(truncate, truncation_direction);
        let options = WindowOptions { truncation, ..WindowOptions::new(limit, stride.unwrap_or(0)) };
        let mut collector = Collector::new(model, None, truncation)?;
        let mut texts = Vec::with_capacity(self.inputs.items.len());
        for (input, text) in self.inputs.items.into_iter().enumerate() {
            let windows = match stride {
                Some(_) => collector.windows(input, Text::Single(&text), &options)?,
                None => vec![collector.first_window(input, Text::Single(&text), &options)?],
            };
            let windows = windows.iter().map(|window| tokens(window, &model.tokenizer)).collect();
            texts.push(TextTokens { text, windows });
        }
        let (sequences, usage) = collector.finish();
        let ignored = ignore_labels.unwrap_or_else(|| vec!["O".into()]);
        Ok((sequences, usage, Finish { texts, single: self.inputs.single, strategy, ignored }))
    }
}

/// A token of a text.
#[derive(Clone, Debug)]
struct Token {
    /// Its place among all tokens of its window.
    index: usize,
    /// How the vocabulary writes it; empty where it is unknown.
    piece: Option<String>,
    start: usize,
    end: usize,
    continues_word: bool,
}

fn tokens(window: &centuple_text::Window, tokenizer: &Tokenizer) -> Vec<Token> {
    let unknown = tokenizer.special_tokens().unk.as_ref().map(|token| token.id);
    let tokens = window.encoding.ids.iter().zip(&window.origins).enumerate().filter(|(_, (_, origin))| !origin.special);
    let token = |(index, (&id, origin)): (usize, (&u32, &centuple_text::Origin))| Token {
        index,
        piece: if unknown == Some(id) { None } else { tokenizer.id_to_token(id) },
        start: origin.characters.start,
        end: origin.characters.end,
        continues_word: origin.continues_word,
    };
    tokens.map(token).collect()
}

#[derive(Clone, Debug)]
struct TextTokens {
    text: String,
    windows: Vec<Vec<Token>>,
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    texts: Vec<TextTokens>,
    single: bool,
    strategy: Strategy,
    ignored: Vec<String>,
}

impl Finish {
    pub(crate) fn reply(self, model: &Model, outputs: &[Output]) -> Result<OneOrMany<Vec<Entity>>, TaskError> {
        let Head::TokenClassification { labels } = &model.card.head else {
            return Ok(OneOrMany::many(Vec::new()));
        };
        let mut outputs = outputs.iter();
        let mut items = Vec::with_capacity(self.texts.len());
        for (input, TextTokens { text, windows }) in self.texts.iter().enumerate() {
            let characters = characters(text);
            let mut entities = Vec::new();
            for (tokens, output) in windows.iter().zip(outputs.by_ref()) {
                let grouping = Grouping { tokenizer: &model.tokenizer, labels, input };
                let found = grouping.entities(tokens, output, &characters, self.strategy)?;
                entities.extend(found.into_iter().filter(|entity| !self.ignores(entity)));
            }
            items.push(if windows.len() > 1 { without_overlap(entities) } else { entities });
        }
        Ok(OneOrMany { items, single: self.single })
    }

    fn ignores(&self, entity: &Entity) -> bool {
        let label = entity.entity.as_ref().or(entity.entity_group.as_ref());
        label.is_some_and(|label| self.ignored.contains(label))
    }
}

/// A token or a word with the scores of all labels.
struct Scored {
    word: String,
    scores: Vec<f32>,
    start: usize,
    end: usize,
    index: usize,
    continues_word: bool,
}

/// A token or a word with its label.
struct Labelled {
    label: usize,
    score: f32,
    word: String,
    start: usize,
    end: usize,
    index: usize,
}

/// What turns tokens into entities.
struct Grouping<'a> {
    tokenizer: &'a Tokenizer,
    labels: &'a [String],
    /// The text's index in the request.
    input: usize,
}

impl Grouping<'_> {
    fn entities(
        &self,
        tokens: &[Token],
        output: &Output,
        text: &[char],
        strategy: Strategy,
    ) -> Result<Vec<Entity>, TaskError> {
        let of_text = |token: &Token| text.get(token.start..token.end).unwrap_or_default().iter().collect();
        let scored = tokens.iter().filter_map(|token| {
            let scores = softmax(output.row(token.index)?);
            let word = token.piece.clone().unwrap_or_else(|| of_text(token));
            let &Token { index, start, end, continues_word, .. } = token;
            Some(Scored { word, scores, start, end, index, continues_word })
        });
        match strategy {
            Strategy::None => Ok(scored.map(|token| self.entity(label(token))).collect()),
            Strategy::Simple => self.groups(scored.map(label).collect()),
            Strategy::First | Strategy::Average | Strategy::Max => {
                let scored: Vec<Scored> = scored.collect();
                let words = scored.chunk_by(|_, token| token.continues_word);
                self.groups(words.map(|word| self.word(word, strategy)).collect::<Result<_, _>>()?)
            }
        }
    }

    /// A token that stands for itself.
    fn entity(&self, token: Labelled) -> Entity {
        let Labelled { label, score, word, start, end, index } = token;
        let entity = self.labels.get(label).cloned();
        Entity { entity, entity_group: None, score, index: Some(index), word, start, end }
    }

    /// A word of one or more tokens as one.
    fn word(&self, tokens: &[Scored], strategy: Strategy) -> Result<Labelled, TaskError> {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return Ok(Labelled { label: 0, score: 0.0, word: String::new(), start: 0, end: 0, index: 0 });
        };
        let highest = |token: &Scored| token.scores.get(largest(&token.scores)).copied().unwrap_or(0.0);
        let scores = match strategy {
            Strategy::None | Strategy::Simple | Strategy::First => first.scores.clone(),
            Strategy::Max => {
                let tops: Vec<f32> = tokens.iter().map(highest).collect();
                tokens[largest(&tops)].scores.clone()
            }
            Strategy::Average => {
                let mean = |label: usize| mean(tokens.iter().map(|token| token.scores[label]));
                (0..first.scores.len()).map(mean).collect()
            }
        };
        let label = largest(&scores);
        let word = self.join(tokens.iter().map(|token| token.word.clone()))?;
        let score = scores.get(label).copied().unwrap_or(0.0);
        Ok(Labelled { label, score, word, start: first.start, end: last.end, index: first.index })
    }

    /// Neighbours of one entity together.
    fn groups(&self, tokens: Vec<Labelled>) -> Result<Vec<Entity>, TaskError> {
        let label = |token: &Labelled| self.labels.get(token.label).map_or("", String::as_str);
        let goes_on = |before: &Labelled, token: &Labelled| {
            let (begins, tag) = tag(label(token));
            !begins && tag == self::tag(label(before)).1
        };
        let group = |tokens: &[Labelled]| {
            let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
            let name = label(first);
            Ok(Entity {
                entity: None,
                entity_group: Some(self::group(name).to_owned()),
                score: mean(tokens.iter().map(|token| token.score)),
                index: None,
                word: self.join(tokens.iter().map(|token| token.word.clone()))?,
                start: first.start,
                end: last.end,
            })
        };
        tokens.chunk_by(goes_on).map(group).collect()
    }

    fn join(&self, words: impl Iterator<Item = String>) -> Result<String, TaskError> {
        self.tokenizer.join(words.collect()).map_err(|source| TaskError::Text { input: self.input, source })
    }
}

fn label(token: Scored) -> Labelled {
    let Scored { word, scores, start, end, index, .. } = token;
    let label = largest(&scores);
    Labelled { label, score: scores.get(label).copied().unwrap_or(0.0), word, start, end, index }
}

fn mean(numbers: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = numbers.len() as f64;
    (numbers.map(f64::from).sum::<f64>() / count) as f32
}

/// The group that tokens of a label are: what stands behind its first `-`, as `PER` of `B-PER`.
pub fn group(label: &str) -> &str {
    label.split_once('-').map_or(label, |(_, group)| group)
}

/// Whether a label says that an entity begins, and which. One without `B-` and `I-` goes on with its like.
fn tag(label: &str) -> (bool, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(tag), _) => (true, tag),
        (None, Some(tag)) => (false, tag),
        (None, None) => (false, label),
    }
}

/// Of entities that begin in one another the longest, and of equally long ones the surest: as transformers does where
/// windows overlap.
fn without_overlap(mut entities: Vec<Entity>) -> Vec<Entity> {
    entities.sort_by_key(|entity| entity.start);
    let mut kept = Vec::with_capacity(entities.len());
    let Some(mut previous) = entities.first().cloned() else {
        return kept;
    };
    for entity in entities {
        if !(previous.start..previous.end).contains(&entity.start) {
            kept.push(std::mem::replace(&mut previous, entity));
            continue;
        }
        let (length, previous_length) = (entity.end - entity.start, previous.end - previous.start);
        if length > previous_length || (length == previous_length && entity.score > previous.score) {
            previous = entity;
        }
    }
    kept.push(previous);
    kept
}
