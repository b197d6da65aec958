//! The judge: examples as token sequences, what is right, and how near a model comes to it.

use centuple_receipt::data::{Class, Example, Kind, Label, Span};
use centuple_receipt::metrics::{
    Accuracy, Average, EntityF1, ExactMatch, F1, LabelAgreement, LogPerplexity, Matthews, MeanCosine, Metric,
    MultiLabelF1, Pearson, Perplexity, Scored, Spearman, TokenF1, cosine,
};
use centuple_tasks::token_classification::{Entity, group};
use centuple_tasks::{
    Engine, Finish, Head, Job, Model, Output, Problem, Reply, Request, Sequence, Task, TaskError, run_in_batches,
};
use centuple_text::{Text, Truncation};
use serde_json::{Value, json};

use super::OptimizeError;

/// Examples that a model is judged by.
pub(crate) struct Judge<'m> {
    model: &'m Model,
    /// Place of each example in its file.
    places: Vec<usize>,
    sequences: Vec<Sequence>,
    /// What makes a reply of each example, where replies are what is judged.
    replies: Vec<ReplyOf>,
    truth: Truth,
    metric: Metric,
}

/// What makes a reply of an example.
struct ReplyOf {
    /// Number of its sequences.
    sequences: usize,
    finish: Finish,
    /// The text that entities are found in.
    text: Vec<char>,
}

/// What is right for each example.
enum Truth {
    /// Similarity of the example's two sequences.
    Similarities(Vec<f64>),
    /// A number that a regression is to give.
    Numbers(Vec<f64>),
    Classes(Vec<u32>),
    Sets(Vec<Vec<u32>>),
    /// Entities of each text.
    Entities(Vec<Vec<Span>>),
    /// Answers that are right for each question.
    Texts(Vec<Vec<String>>),
    /// The next token, wherever there is one.
    Next,
    /// Nobody knows; a model is compared with itself in f32.
    Unknown {
        classes: bool,
    },
}

/// What a model answers.
#[derive(Clone, Debug)]
pub(crate) enum Answers {
    Numbers(Vec<f64>),
    Classes(Vec<u32>),
    Sets(Vec<Vec<u32>>),
    Entities(Vec<Vec<Span>>),
    Texts(Vec<String>),
    /// The summed negative log-likelihood of each text's tokens, in nats, and how many tokens it sums.
    Losses(Vec<(f64, u32)>),
    Vectors(Vec<Vec<f32>>),
}

/// Outputs of a model, and the answers that they are.
pub(crate) struct Answered {
    outputs: Vec<Output>,
    pub(crate) answers: Answers,
}

impl<'m> Judge<'m> {
    /// Some examples of a file, for a model and a metric; by default the one that is usual for them.
    pub(crate) fn new(
        model: &'m Model,
        examples: &[Example],
        places: &[usize],
        metric: Option<Metric>,
    ) -> Result<Judge<'m>, OptimizeError> {
        let asking = Asking { model, may_be_unanswerable: examples.iter().any(has_no_answer) };
        let (mut sequences, mut replies) = (Vec::with_capacity(places.len()), Vec::new());
        for &place in places {
            let (of_example, finish) = asking.sequences(&examples[place], place)?;
            let text = || examples[place].texts().next().unwrap_or_default().chars().collect();
            replies.extend(finish.map(|finish| ReplyOf { sequences: of_example.len(), finish, text: text() }));
            sequences.extend(of_example);
        }
        let truth = Truth::of(model, examples, places)?;
        let metric = truth.metric(metric)?;
        Ok(Judge { model, places: places.to_vec(), sequences, replies, truth, metric })
    }

    /// What the engine is given for all examples.
    pub(crate) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether there is something to be right about.
    pub(crate) fn is_labelled(&self) -> bool {
        !matches!(self.truth, Truth::Unknown { .. })
    }

    /// What a model answers.
    pub(crate) fn ask(&self, engine: &mut dyn Engine) -> Result<Answered, OptimizeError> {
        let outputs = run_in_batches(engine, &self.sequences)?;
        let first = |output: &Output| output.data.first().copied().map_or(f64::NAN, f64::from);
        let answers = match &self.truth {
            Truth::Similarities(_) => {
                let pairs = outputs.chunks_exact(2);
                Answers::Numbers(pairs.map(|pair| cosine(&pair[0].data, &pair[1].data)).collect())
            }
            Truth::Numbers(_) => Answers::Numbers(outputs.iter().map(first).collect()),
            Truth::Classes(_) | Truth::Unknown { classes: true } => {
                Answers::Classes(outputs.iter().map(|output| largest(&output.data)).collect())
            }
            Truth::Sets(_) => Answers::Sets(outputs.iter().map(|output| positive(&output.data)).collect()),
            Truth::Entities(_) => Answers::Entities(self.entities(&outputs)?),
            Truth::Texts(_) => Answers::Texts(self.texts(&outputs)?),
            Truth::Next => Answers::Losses(outputs.iter().map(loss).collect()),
            Truth::Unknown { classes: false } => {
                Answers::Vectors(outputs.iter().map(|output| output.data.clone()).collect())
            }
        };
        Ok(Answered { outputs, answers })
    }

    /// The reply to each example.
    fn replies(&self, outputs: &[Output]) -> Result<Vec<Reply>, OptimizeError> {
        let mut rest = outputs;
        let reply = |(of, &place): (&ReplyOf, &usize)| {
            let (own, others) = rest.split_at_checked(of.sequences).unwrap_or((rest, &[]));
            rest = others;
            let reply = of.finish.clone().reply(self.model, own.to_vec());
            reply.map_err(|error| of_example(place, &error))
        };
        self.replies.iter().zip(&self.places).map(reply).collect()
    }

    fn entities(&self, outputs: &[Output]) -> Result<Vec<Vec<Span>>, OptimizeError> {
        let spans = |(reply, of): (Reply, &ReplyOf)| {
            let Reply::Entities(texts) = reply else { return Vec::new() };
            texts.items.into_iter().flatten().map(|entity| span(entity, &of.text)).collect()
        };
        Ok(self.replies(outputs)?.into_iter().zip(&self.replies).map(spans).collect())
    }

    fn texts(&self, outputs: &[Output]) -> Result<Vec<String>, OptimizeError> {
        let text = |reply| {
            let Reply::Answers(questions) = reply else { return String::new() };
            let best = questions.items.into_iter().flat_map(|answers| answers.items).next();
            best.map_or_else(String::new, |answer| answer.answer)
        };
        Ok(self.replies(outputs)?.into_iter().map(text).collect())
    }

    /// The metric's material for answers; `baseline` are those in f32.
    pub(crate) fn score(&self, answers: &Answers, baseline: &Answers) -> Result<Box<dyn Scored>, OptimizeError> {
        let scored: Box<dyn Scored> = match (&self.truth, answers, baseline) {
            (Truth::Similarities(truth) | Truth::Numbers(truth), Answers::Numbers(found), _) => {
                if self.metric == Metric::Pearson {
                    Box::new(Pearson::new(truth, found)?)
                } else {
                    Box::new(Spearman::new(truth, found)?)
                }
            }
            (Truth::Classes(truth), Answers::Classes(found), _) => match average(self.metric) {
                Some(average) => Box::new(F1::new(truth, found, average)?),
                None if self.metric == Metric::MatthewsCorrelation => Box::new(Matthews::new(truth, found)?),
                None => Box::new(Accuracy::new(truth, found)?),
            },
            (Truth::Sets(truth), Answers::Sets(found), _) => Box::new(MultiLabelF1::new(truth, found)?),
            (Truth::Entities(truth), Answers::Entities(found), _) => Box::new(EntityF1::new(truth, found)?),
            (Truth::Texts(truth), Answers::Texts(found), _) => {
                if self.metric == Metric::ExactMatch {
                    Box::new(ExactMatch::new(truth, found)?)
                } else {
                    Box::new(TokenF1::new(truth, found)?)
                }
            }
            (Truth::Next, Answers::Losses(found), _) => {
                let (losses, tokens): (Vec<f64>, Vec<u32>) = found.iter().copied().unzip();
                let perplexity = Perplexity::new(&losses, &tokens)?;
                if self.metric == Metric::Perplexity {
                    Box::new(perplexity)
                } else {
                    Box::new(LogPerplexity::from(perplexity))
                }
            }
            (Truth::Unknown { .. }, Answers::Classes(found), Answers::Classes(baseline)) => {
                Box::new(LabelAgreement::new(baseline, found)?)
            }
            (Truth::Unknown { .. }, Answers::Vectors(found), Answers::Vectors(baseline)) => {
                let cosines: Vec<f64> = found.iter().zip(baseline).map(|(a, b)| cosine(a, b)).collect();
                Box::new(MeanCosine::new(&cosines)?)
            }
            _ => return Err(OptimizeError::Examples("answers and examples are of different kinds".to_owned())),
        };
        Ok(scored)
    }

    /// Points that answers lose against the baseline; not finite where the metric isn't defined.
    pub(super) fn drop(&self, answers: &Answers, baseline: &Answers) -> Result<f64, OptimizeError> {
        let value = |answers| Ok::<f64, OptimizeError>(self.score(answers, baseline)?.point().unwrap_or(f64::NAN));
        Ok(self.metric.drop(value(baseline)?, value(answers)?))
    }

    /// A line of JSON for each example: its place, what is right, and both answers.
    pub(super) fn lines(&self, answers: &Answers, baseline: &Answers) -> Vec<u8> {
        let mut text = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let label = match &self.truth {
                Truth::Similarities(truth) | Truth::Numbers(truth) => json!(truth[index]),
                Truth::Classes(truth) => json!(truth[index]),
                Truth::Sets(truth) => json!(truth[index]),
                Truth::Entities(truth) => spans_json(&truth[index]),
                Truth::Texts(truth) => json!(truth[index]),
                Truth::Next | Truth::Unknown { .. } => Value::Null,
            };
            let line = match (answers.get(index), baseline.get(index)) {
                (Ok(answer), Ok(baseline)) => {
                    json!({ "example": place, "label": label, "f32": baseline, "optimised": answer })
                }
                (Err(a), Err(b)) => json!({ "example": place, "cosine": cosine(a, b) }),
                _ => Value::Null,
            };
            text.extend(line.to_string().into_bytes());
            text.push(b'\n');
        }
        text
    }
}

impl Answers {
    /// One answer, or the vector that it is.
    fn get(&self, index: usize) -> Result<Value, &[f32]> {
        match self {
            Answers::Numbers(numbers) => Ok(json!(numbers[index])),
            Answers::Classes(classes) => Ok(json!(classes[index])),
            Answers::Sets(sets) => Ok(json!(sets[index])),
            Answers::Entities(entities) => Ok(spans_json(&entities[index])),
            Answers::Texts(texts) => Ok(json!(texts[index])),
            Answers::Losses(losses) => Ok(json!({ "loss": losses[index].0, "tokens": losses[index].1 })),
            Answers::Vectors(vectors) => Err(&vectors[index]),
        }
    }
}

impl Answered {
    /// Mean of 1 − cosine of the outputs to those of `baseline`.
    pub(super) fn error(&self, baseline: &Answered) -> f64 {
        drift(&self.outputs, &baseline.outputs)
    }
}

/// The summed negative log-likelihood of a text's tokens, and how many they are.
fn loss(likelihoods: &Output) -> (f64, u32) {
    let sum: f64 = likelihoods.data.iter().copied().map(f64::from).sum();
    (-sum, u32::try_from(likelihoods.data.len()).unwrap_or(u32::MAX))
}

/// Mean of 1 − cosine of outputs to others.
pub(super) fn drift(outputs: &[Output], baseline: &[Output]) -> f64 {
    let pairs = outputs.iter().zip(baseline);
    pairs.map(|(a, b)| 1.0 - cosine(&a.data, &b.data)).sum::<f64>() / outputs.len().max(1) as f64
}

/// Where an entity stands, without the spaces that some tokenizers count to a word.
fn span(entity: Entity, text: &[char]) -> Span {
    let (mut start, mut end) = (entity.start, entity.end);
    let is_space = |place: usize| text.get(place).is_some_and(|character| character.is_whitespace());
    while start < end && is_space(start) {
        start += 1;
    }
    while start < end && is_space(end - 1) {
        end -= 1;
    }
    Span { start, end, label: entity.entity_group.or(entity.entity).unwrap_or_default() }
}

fn spans_json(spans: &[Span]) -> Value {
    spans.iter().map(|span| json!({ "start": span.start, "end": span.end, "label": span.label })).collect()
}

/// Whether a question's right answer is that there is none.
fn has_no_answer(example: &Example) -> bool {
    matches!(example, Example::Answer { answers, .. } if answers.iter().any(|answer| answer.trim().is_empty()))
}

fn of_example(place: usize, error: &dyn std::fmt::Display) -> OptimizeError {
    OptimizeError::Example { place, reason: error.to_string() }
}

/// How examples are put to a model.
struct Asking<'m> {
    model: &'m Model,
    /// Whether a question may have no answer.
    may_be_unanswerable: bool,
}

impl Asking<'_> {
    /// What the engine is given for an example, and what makes a reply of its outputs where that is the answer.
    fn sequences(&self, example: &Example, place: usize) -> Result<(Vec<Sequence>, Option<Finish>), OptimizeError> {
        let prepare = |task, inputs: Value| self.job(task, json!({ "inputs": inputs }), place);
        let sequences = |job: Job| (job.sequences, None);
        let task = match &self.model.card.head {
            Head::SentenceEmbedding(_)
            | Head::TokenFeatures { .. }
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. } => Task::FeatureExtraction,
            Head::Classification { .. } => Task::TextClassification,
            Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::CausalLm { .. }
            | Head::Seq2SeqLm { .. } => {
                return self.replied(example, place);
            }
        };
        let embeds = task == Task::FeatureExtraction;
        match example {
            Example::Text { inputs, pair: None, .. } | Example::Plain { inputs, pair: None } => {
                prepare(task, json!(inputs)).map(sequences)
            }
            Example::Text { inputs, pair: Some(pair), .. } | Example::Plain { inputs, pair: Some(pair) } if !embeds => {
                prepare(task, json!({ "text": inputs, "text_pair": pair })).map(sequences)
            }
            Example::Similarity { first, second, .. } if embeds => {
                let pair = [prepare(task, json!(first))?.sequences, prepare(task, json!(second))?.sequences];
                Ok((pair.concat(), None))
            }
            Example::Similarity { first, second, .. } => {
                prepare(task, json!({ "text": first, "text_pair": second })).map(sequences)
            }
            Example::Text { .. } | Example::Plain { .. } => {
                let reason = "the model embeds single texts, not pairs; call the columns of two texts and their score";
                Err(of_example(place, &reason))
            }
            Example::Entities { .. } | Example::Answer { .. } => Err(unfit(self.model, example.kind())),
        }
    }

    /// The same for models whose outputs say little before they are a reply.
    fn replied(&self, example: &Example, place: usize) -> Result<(Vec<Sequence>, Option<Finish>), OptimizeError> {
        let finished = |job: Job| (job.sequences, Some(job.finish));
        match (example, &self.model.card.head) {
            (Example::Entities { inputs, .. }, Head::TokenClassification { .. }) => {
                let stride = self.model.tokenizer.max_tokens() / 4;
                let parameters = json!({ "aggregation_strategy": "first", "stride": stride });
                let body = json!({ "inputs": inputs, "parameters": parameters });
                self.job(Task::TokenClassification, body, place).map(finished)
            }
            (Example::Answer { question, context, .. }, Head::QuestionAnswering) => {
                let parameters = json!({ "handle_impossible_answer": self.may_be_unanswerable });
                let inputs = json!({ "question": question, "context": context });
                let body = json!({ "inputs": inputs, "parameters": parameters });
                self.job(Task::QuestionAnswering, body, place).map(finished)
            }
            (Example::Plain { inputs, pair }, _) => Ok((vec![self.plain(inputs, pair.as_deref(), place)?], None)),
            _ => Err(unfit(self.model, example.kind())),
        }
    }

    /// A text as it is. A masked language model has to find the token in its middle, one that
    /// generates each next one.
    fn plain(&self, text: &str, pair: Option<&str>, place: usize) -> Result<Sequence, OptimizeError> {
        let text = pair.map_or(Text::Single(text), |pair| Text::Pair(text, pair));
        let encoding = self.model.tokenizer.encode(text, Truncation::Right);
        let encoding = encoding.map_err(|error| of_example(place, &error))?;
        let mut sequence = Sequence { type_ids: encoding.type_ids.clone(), ..Sequence::from_ids(encoding.ids.clone()) };
        if let Head::MaskedLm { .. } = self.model.card.head {
            let mask = self.model.tokenizer.special_tokens().mask.as_ref();
            let mask = mask.ok_or_else(|| of_example(place, &"the model's tokenizer has no mask token"))?;
            let middle = sequence.len() / 2;
            sequence.ids[middle] = mask.id;
            sequence.selected = vec![middle];
        } else if let Head::CausalLm { .. } = self.model.card.head {
            sequence.selected = (0..sequence.len()).collect();
        }
        let checked = self.model.limits.check(&sequence);
        checked.map_err(|error| of_example(place, &error))?;
        Ok(sequence)
    }

    fn job(&self, task: Task, body: Value, place: usize) -> Result<Job, OptimizeError> {
        let prepare = || -> Result<Job, TaskError> {
            Job::prepare(self.model, Request::parse(task, body.to_string().as_bytes())?)
        };
        prepare().map_err(|error| of_example(place, &error))
    }
}

impl Truth {
    fn of(model: &Model, examples: &[Example], places: &[usize]) -> Result<Truth, OptimizeError> {
        let kind = places.first().map_or(Kind::Plain, |&place| examples[place].kind());
        let wanted = || places.iter().map(|&place| (place, &examples[place]));
        let scores = || {
            let score = |(_, example)| if let &Example::Similarity { score, .. } = example { score } else { f64::NAN };
            wanted().map(score).collect()
        };
        match (kind, &model.card.head) {
            (Kind::Plain, Head::CausalLm { .. }) => Ok(Truth::Next),
            (Kind::Plain, Head::Classification { .. } | Head::MaskedLm { .. } | Head::Seq2SeqLm { .. }) => {
                Ok(Truth::Unknown { classes: true })
            }
            (
                Kind::Plain,
                Head::SentenceEmbedding(_)
                | Head::TokenFeatures { .. }
                | Head::SparseEmbedding { .. }
                | Head::LateInteraction { .. }
                | Head::TokenClassification { .. }
                | Head::QuestionAnswering,
            ) => Ok(Truth::Unknown { classes: false }),
            (Kind::Entities, Head::TokenClassification { labels }) => {
                let known: Vec<&str> = labels.iter().map(|label| group(label)).collect();
                let spans = |(place, example): (usize, &Example)| {
                    let Example::Entities { spans, .. } = example else { return Ok(Vec::new()) };
                    spans.iter().map(|span| known_span(span, &known, place)).collect()
                };
                Ok(Truth::Entities(wanted().map(spans).collect::<Result<_, _>>()?))
            }
            (Kind::Answer, Head::QuestionAnswering) => {
                let answers = |(_, example): (usize, &Example)| match example {
                    Example::Answer { answers, .. } => answers.clone(),
                    Example::Text { .. }
                    | Example::Similarity { .. }
                    | Example::Entities { .. }
                    | Example::Plain { .. } => Vec::new(),
                };
                Ok(Truth::Texts(wanted().map(answers).collect()))
            }
            (Kind::Similarity, Head::SentenceEmbedding(_)) => Ok(Truth::Similarities(scores())),
            (Kind::Similarity, Head::Classification { labels, .. }) if labels.len() == 1 => {
                Ok(Truth::Numbers(scores()))
            }
            (Kind::Text, Head::Classification { labels, problem: Problem::SingleLabel }) => {
                let class = |(place, example): (usize, &Example)| {
                    if let Example::Text { label: Label::One(class), .. } = example {
                        return class_of(class, labels, place);
                    }
                    let reason = "it has several labels, the model gives one".to_owned();
                    Err(OptimizeError::Example { place, reason })
                };
                Ok(Truth::Classes(wanted().map(class).collect::<Result<_, _>>()?))
            }
            (Kind::Text, Head::Classification { labels, problem: Problem::MultiLabel }) => {
                let classes = |(place, example): (usize, &Example)| {
                    let Example::Text { label, .. } = example else { return Ok(Vec::new()) };
                    let classes = match label {
                        Label::One(class) => std::slice::from_ref(class),
                        Label::Many(classes) => classes,
                    };
                    classes.iter().map(|class| class_of(class, labels, place)).collect()
                };
                Ok(Truth::Sets(wanted().map(classes).collect::<Result<_, _>>()?))
            }
            (Kind::Text | Kind::Similarity | Kind::Entities | Kind::Answer, _) => Err(unfit(model, kind)),
        }
    }

    /// The metric asked for, or the usual one.
    fn metric(&self, asked: Option<Metric>) -> Result<Metric, OptimizeError> {
        let known: &[Metric] = match self {
            Truth::Similarities(_) | Truth::Numbers(_) => &[Metric::Spearman, Metric::Pearson],
            Truth::Classes(_) => &[
                Metric::Accuracy,
                Metric::F1,
                Metric::F1Macro,
                Metric::F1Micro,
                Metric::F1Weighted,
                Metric::MatthewsCorrelation,
            ],
            Truth::Sets(_) => &[Metric::MultiLabelF1],
            Truth::Entities(_) => &[Metric::EntityF1],
            Truth::Texts(_) => &[Metric::TokenF1, Metric::ExactMatch],
            Truth::Next => &[Metric::LogPerplexity, Metric::Perplexity],
            Truth::Unknown { classes: true } => &[Metric::LabelAgreement],
            Truth::Unknown { classes: false } => &[Metric::MeanCosine],
        };
        match asked {
            None => Ok(known[0]),
            Some(asked) if known.contains(&asked) => Ok(asked),
            Some(asked) => {
                let names: Vec<&str> = known.iter().map(|metric| metric.name()).collect();
                let reason = format!("{asked} cannot be computed on them; there is {}", names.join(", "));
                Err(OptimizeError::Examples(reason))
            }
        }
    }
}

/// How F1 is averaged; `None` for other metrics.
fn average(metric: Metric) -> Option<Average> {
    [Average::Binary { positive: 1 }, Average::Macro, Average::Micro, Average::Weighted]
        .into_iter()
        .zip([Metric::F1, Metric::F1Macro, Metric::F1Micro, Metric::F1Weighted])
        .find_map(|(average, of)| (of == metric).then_some(average))
}

fn unfit(model: &Model, kind: Kind) -> OptimizeError {
    let wanted = match &model.card.head {
        Head::SentenceEmbedding(_) => "pairs of texts with a score, or texts without labels",
        Head::TokenFeatures { .. } | Head::SparseEmbedding { .. } | Head::LateInteraction { .. } => {
            "texts without labels"
        }
        Head::Classification { .. } => "texts with labels, or without",
        Head::MaskedLm { .. } | Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => "texts without labels",
        Head::TokenClassification { .. } => "texts with entities, or without labels",
        Head::QuestionAnswering => "questions with a context and answers, or texts without labels",
    };
    OptimizeError::Examples(format!("they are of the kind `{kind}`; {} is judged by {wanted}", model.card.id))
}

/// A span whose label is written as the model writes it.
fn known_span(span: &Span, known: &[&str], place: usize) -> Result<Span, OptimizeError> {
    let same = known.iter().find(|label| **label == span.label);
    let label = same.or_else(|| known.iter().find(|label| label.eq_ignore_ascii_case(&span.label)));
    let label = label.ok_or_else(|| {
        let mut known = known.to_vec();
        known.dedup();
        let reason = format!("the model finds no `{}`; it finds {}", span.label, known.join(", "));
        OptimizeError::Example { place, reason }
    })?;
    Ok(Span { label: (*label).to_owned(), ..*span })
}

fn class_of(class: &Class, labels: &[String], place: usize) -> Result<u32, OptimizeError> {
    let index = match class {
        Class::Id(id) => Some(*id as usize).filter(|&id| id < labels.len()),
        Class::Name(name) => labels
            .iter()
            .position(|label| label == name)
            .or_else(|| labels.iter().position(|label| label.eq_ignore_ascii_case(name))),
    };
    index.and_then(|index| u32::try_from(index).ok()).ok_or_else(|| {
        let class = match class {
            Class::Id(id) => id.to_string(),
            Class::Name(name) => format!("`{name}`"),
        };
        let reason = format!("the model has no label {class}; it has {}", labels.join(", "));
        OptimizeError::Example { place, reason }
    })
}

/// Place of the largest number, the first of equals.
fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (place, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = place;
        }
    }
    best as u32
}

/// Places of what is over 0, where a sigmoid is over one half.
fn positive(logits: &[f32]) -> Vec<u32> {
    (0u32..).zip(logits).filter(|(_, logit)| **logit > 0.0).map(|(place, _)| place).collect()
}
