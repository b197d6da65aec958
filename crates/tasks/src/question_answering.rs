//! question-answering: the part of a text that answers a question.
//!
//! Body: `{"inputs": {"question": "...", "context": "..."}, "parameters": {...}}`; a list of such inputs is taken too.
//!
//! | parameter | meaning |
//! |---|---|
//! | `top_k` | number of answers; 1 by default |
//! | `max_seq_len` | most tokens of a window: question, part of the context, special tokens; 384 by default, less where the model takes less |
//! | `doc_stride` | tokens of the context that windows share; half of `max_seq_len` by default, at most 128 |
//! | `max_answer_len` | most tokens of an answer; 15 by default |
//! | `max_question_len` | tokens after which the question is cut; absent: it isn't |
//! | `handle_impossible_answer` | whether "no answer" (an empty one) takes part; it doesn't by default |
//! | `align_to_words` | whether answers are stretched to whole words; they are by default |
//!
//! Reply: `{"score", "start", "end", "answer"}`, and a list of these, best first, where `top_k` is more than 1. `start`
//! and `end` count characters (Unicode scalar values) of the context. A list of inputs has a list of such replies.
//!
//! Scores are those of transformers' pipeline: equal answers, whatever the case of their letters, are one whose scores
//! are added. Unlike there, spans of probability 0 are no answers.

use std::{collections::HashMap, ops::Range};

use centuple_text::{Split, Text, Truncation, Window, WindowOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    body::{Body, Object, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::Model,
    scores::{best_by, softmax},
    tokens::{Collector, Usage, characters},
};

/// Most answers that may be asked for.
pub const MAX_ANSWERS: usize = 1000;
/// Most tokens that an answer may have.
pub const MAX_ANSWER_TOKENS: usize = 1000;
/// Most tokens of all answers that are compared with each other.
const MAX_COMPARED_TOKENS: usize = 1 << 24;

/// Questions, and how they are answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The questions.
    pub inputs: OneOrMany<Input>,
    /// How.
    pub parameters: Parameters,
}

/// A question and the text that has the answer.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = Question)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What is asked.
    #[schema(min_length = 1)]
    pub question: String,
    /// Where it is answered.
    #[schema(min_length = 1)]
    pub context: String,
}

/// How questions are answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = QuestionAnsweringParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Number of answers.
    #[serde(alias = "topk")]
    #[schema(minimum = 1, maximum = 1000)]
    pub top_k: Option<usize>,
    /// Tokens of the context that windows share.
    pub doc_stride: Option<usize>,
    /// Most tokens of an answer.
    #[schema(minimum = 1, maximum = 1000)]
    pub max_answer_len: Option<usize>,
    /// Most tokens of a window.
    pub max_seq_len: Option<usize>,
    /// Tokens after which the question is cut.
    pub max_question_len: Option<usize>,
    /// Whether "no answer" takes part.
    pub handle_impossible_answer: Option<bool>,
    /// Whether answers are stretched to whole words.
    pub align_to_words: Option<bool>,
}

/// A part of the context.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Answer {
    /// How probable it is; more than one place may have added to it.
    pub score: f32,
    /// First character.
    pub start: usize,
    /// The character behind the last one.
    pub end: usize,
    /// What stands there; empty where there is no answer.
    pub answer: String,
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters } = from_json::<Body<OneOrMany<Object<Input>>, _>>(body)?;
        let items = inputs.items.into_iter().map(|Object(input)| input).collect();
        Ok(Self { inputs: OneOrMany { items, single: inputs.single }, parameters })
    }

    /// Number of questions.
    pub(crate) fn len(&self) -> usize {
        self.inputs.items.len()
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        let options = window_options(model, &self.parameters)?;
        let Parameters { top_k, max_answer_len, max_question_len, .. } = self.parameters;
        let (top_k, longest) = (top_k.unwrap_or(1), max_answer_len.unwrap_or(15));
        let whole_words = self.parameters.align_to_words.unwrap_or(true);
        for (name, value) in [("top_k", top_k), ("max_answer_len", longest)] {
            if value == 0 {
                return Err(TaskError::Parameter { name, reason: "0 leaves no answer; give 1 or more".into() });
            }
        }
        for (name, value, most) in [("top_k", top_k, MAX_ANSWERS), ("max_answer_len", longest, MAX_ANSWER_TOKENS)] {
            if value > most {
                return Err(TaskError::Parameter { name, reason: format!("{value} is too much; give at most {most}") });
            }
        }
        let mut collector = Collector::new(model, None, Truncation::Right)?;
        let mut contexts = Vec::with_capacity(self.inputs.items.len());
        for (input, Input { question, context }) in self.inputs.items.into_iter().enumerate() {
            for (name, text) in [("question", &question), ("context", &context)] {
                if text.is_empty() {
                    let reason = format!("input {input} has an empty one; give at least one character");
                    return Err(TaskError::Parameter { name, reason });
                }
            }
            let question = cut_question(model, input, question, max_question_len)?;
            let windows = collector.windows(input, Text::Pair(&question, &context), &options)?;
            let windows = windows.iter().map(|window| places(window, model)).collect();
            contexts.push(Context { text: context, windows });
        }
        let (sequences, usage) = collector.finish();
        let compared = sequences.len() * candidates(top_k, whole_words) * longest.min(options.max_tokens);
        if compared > MAX_COMPARED_TOKENS {
            let reason = format!("{top_k} answers are too many for {} windows; ask for less at once", sequences.len());
            return Err(TaskError::Parameter { name: "top_k", reason });
        }
        let finish = Finish {
            contexts,
            single: self.inputs.single,
            top_k,
            longest,
            impossible: self.parameters.handle_impossible_answer.unwrap_or(false),
            whole_words,
        };
        Ok((sequences, usage, finish))
    }
}

fn window_options(model: &Model, parameters: &Parameters) -> Result<WindowOptions, TaskError> {
    let limit = model.tokenizer.max_tokens();
    let max_tokens = parameters.max_seq_len.unwrap_or(limit.min(384));
    if max_tokens > limit {
        let reason = format!("{max_tokens} tokens are more than the model takes, which is {limit}");
        return Err(TaskError::Parameter { name: "max_seq_len", reason });
    }
    let stride = parameters.doc_stride.unwrap_or((max_tokens / 2).min(128));
    if stride > max_tokens {
        let reason = format!("{stride} shared tokens are more than a window of {max_tokens} has (`max_seq_len`)");
        return Err(TaskError::Parameter { name: "doc_stride", reason });
    }
    Ok(WindowOptions { split: Split::Second, ..WindowOptions::new(max_tokens, stride) })
}

/// The question without what lies behind its first `most` tokens.
fn cut_question(model: &Model, input: usize, question: String, most: Option<usize>) -> Result<String, TaskError> {
    let Some(most) = most else { return Ok(question) };
    if most == 0 {
        let reason = "0 tokens leave nothing of the question; give 1 or more".into();
        return Err(TaskError::Parameter { name: "max_question_len", reason });
    }
    let options = WindowOptions::new(model.tokenizer.max_tokens(), 0);
    let windows = model.tokenizer.windows(Text::Single(&question), &options);
    let windows = windows.map_err(|source| TaskError::Text { input, source })?;
    let mut tokens = windows.iter().flat_map(|window| &window.origins).filter(|origin| !origin.special);
    let end = tokens.nth(most - 1).map_or(usize::MAX, |origin| origin.characters.end);
    Ok(question.chars().take(end).collect())
}

/// A token as the place where an answer may begin or end.
#[derive(Clone, Debug)]
struct Place {
    /// Whether its probability counts: the context's tokens and the one that stands for "no answer".
    counts: bool,
    characters: Range<usize>,
    word: Option<u32>,
    in_context: bool,
}

fn places(window: &Window, model: &Model) -> Vec<Place> {
    let cls = model.tokenizer.special_tokens().cls.as_ref().map(|token| token.id);
    let place = |(&id, origin): (&u32, &centuple_text::Origin)| {
        let in_context = origin.text == Some(1);
        let counts = in_context || cls == Some(id);
        Place { counts, characters: origin.characters.clone(), word: origin.word, in_context }
    };
    window.encoding.ids.iter().zip(&window.origins).map(place).collect()
}

#[derive(Clone, Debug)]
struct Context {
    text: String,
    windows: Vec<Vec<Place>>,
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    contexts: Vec<Context>,
    single: bool,
    top_k: usize,
    /// Most tokens of an answer.
    longest: usize,
    impossible: bool,
    whole_words: bool,
}

impl Finish {
    pub(crate) fn reply(self, outputs: &[Output]) -> OneOrMany<Answers> {
        let mut outputs = outputs.iter();
        let items = self.contexts.iter().map(|context| {
            let answers = self.answers(context, &mut outputs);
            OneOrMany { items: answers, single: self.top_k == 1 }
        });
        let items = items.collect();
        OneOrMany { items, single: self.single }
    }

    fn answers<'a>(&self, context: &Context, outputs: &mut impl Iterator<Item = &'a Output>) -> Vec<Answer> {
        let text = characters(&context.text);
        let candidates = candidates(self.top_k, self.whole_words);
        let mut no_answer = f32::INFINITY;
        let mut answers: Vec<Answer> = Vec::new();
        let mut by_text: HashMap<String, usize> = HashMap::new();
        for (places, output) in context.windows.iter().zip(outputs) {
            let (mut starts, mut ends) = (column(output, 0, places), column(output, 1, places));
            if let (Some(start), Some(end)) = (starts.first_mut(), ends.first_mut()) {
                no_answer = no_answer.min(*start * *end);
                (*start, *end) = (0.0, 0.0);
            }
            for (first, last, score) in spans(&starts, &ends, self.longest, candidates) {
                let range = self.range(places, first, last);
                let answer: String = text.get(range.clone()).unwrap_or_default().iter().collect();
                match by_text.get(&answer.to_lowercase()) {
                    Some(&place) => answers[place].score += score,
                    None => {
                        by_text.insert(answer.to_lowercase(), answers.len());
                        answers.push(Answer { score, start: range.start, end: range.end, answer });
                    }
                }
            }
        }
        if self.impossible {
            let score = if no_answer.is_finite() { no_answer } else { 0.0 };
            answers.push(Answer { score, start: 0, end: 0, answer: String::new() });
        }
        answers.sort_by(|a, b| b.score.total_cmp(&a.score));
        answers.truncate(self.top_k);
        if answers.is_empty() {
            answers.push(Answer { score: 0.0, start: 0, end: 0, answer: String::new() });
        }
        answers
    }

    /// Characters of the tokens `first` to `last`, or of their words.
    fn range(&self, places: &[Place], first: usize, last: usize) -> Range<usize> {
        let of_words = || {
            let in_word = |word: u32| move |place: &&Place| place.in_context && place.word == Some(word);
            let start = places.iter().find(in_word(places[first].word?))?;
            let end = places.iter().rfind(in_word(places[last].word?))?;
            Some(start.characters.start..end.characters.end)
        };
        let of_tokens = places[first].characters.start..places[last].characters.end;
        if self.whole_words { of_words().unwrap_or(of_tokens) } else { of_tokens }
    }
}

/// The answers to a question, best first; one of them where one was asked for.
pub type Answers = OneOrMany<Answer>;

/// Number of spans of each window that may become answers: stretched to whole words, several may be one.
fn candidates(top_k: usize, whole_words: bool) -> usize {
    if whole_words { 2 * top_k + 10 } else { top_k }
}

/// Probabilities of the tokens in a column of logits; 0 where a token doesn't count.
fn column(output: &Output, column: usize, places: &[Place]) -> Vec<f32> {
    let of_place =
        |(row, place): (usize, &Place)| if place.counts { output.row(row)?.get(column).copied() } else { None };
    let logits: Vec<Option<f32>> = places.iter().enumerate().map(of_place).collect();
    let mut scores = softmax(&logits.iter().copied().flatten().collect::<Vec<_>>()).into_iter();
    logits.into_iter().map(|logit| logit.and_then(|_| scores.next()).unwrap_or(0.0)).collect()
}

/// The best so many spans of at most `longest` tokens: first and last token, and the product of their probabilities.
fn spans(starts: &[f32], ends: &[f32], longest: usize, most: usize) -> Vec<(usize, usize, f32)> {
    let mut spans: Vec<(usize, usize, f32)> = Vec::new();
    let best = |spans: &[(usize, usize, f32)]| -> Vec<(usize, usize, f32)> {
        best_by(spans.len(), most, |place| spans[place].2).into_iter().map(|place| spans[place]).collect()
    };
    for (first, start) in starts.iter().enumerate().filter(|(_, start)| **start > 0.0) {
        for (last, end) in ends.iter().enumerate().skip(first).take(longest) {
            let score = start * end;
            if score > 0.0 {
                spans.push((first, last, score));
            }
        }
        if spans.len() > 2 * most + 10_000 {
            spans = best(&spans);
        }
    }
    best(&spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_spans_are_in_order_and_short_enough() {
        let (starts, ends) = ([0.0, 0.5, 0.3, 0.2], [0.0, 0.1, 0.2, 0.7]);
        let found = spans(&starts, &ends, 2, 3);
        assert_eq!(found.iter().map(|span| (span.0, span.1)).collect::<Vec<_>>(), [(2, 3), (3, 3), (1, 2)]);
        assert_eq!(spans(&starts, &ends, usize::MAX, 1), [(1, 3, 0.35)]);
        assert!(spans(&[0.0; 3], &[1.0; 3], 3, 9).is_empty());
    }
}
