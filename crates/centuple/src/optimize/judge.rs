//! The judge: examples as token sequences, what is right, and how near a model comes to it.

use centuple_receipt::data::{Class, Example, Kind, Label};
use centuple_receipt::metrics::{
    Accuracy, Average, F1, LabelAgreement, Matthews, MeanCosine, Metric, MultiLabelF1, Pearson, Scored, Spearman,
    cosine,
};
use centuple_tasks::{Engine, Head, Job, Model, Output, Problem, Request, Sequence, Task, run_in_batches};
use serde_json::{Value, json};

use super::OptimizeError;

/// Examples that a model is judged by.
pub(super) struct Judge {
    /// Place of each example in its file.
    places: Vec<usize>,
    sequences: Vec<Sequence>,
    truth: Truth,
    metric: Metric,
}

/// What is right for each example.
enum Truth {
    /// Similarity of the example's two sequences.
    Similarities(Vec<f64>),
    /// A number that a regression is to give.
    Numbers(Vec<f64>),
    Classes(Vec<u32>),
    Sets(Vec<Vec<u32>>),
    /// Nobody knows; a model is compared with itself in f32.
    Unknown {
        classes: bool,
    },
}

/// What a model answers.
#[derive(Clone, Debug)]
pub(super) enum Answers {
    Numbers(Vec<f64>),
    Classes(Vec<u32>),
    Sets(Vec<Vec<u32>>),
    Vectors(Vec<Vec<f32>>),
}

/// Outputs of a model, and the answers that they are.
pub(super) struct Answered {
    outputs: Vec<Output>,
    pub(super) answers: Answers,
}

impl Judge {
    /// Some examples of a file, for a model and a metric; by default the one that is usual for them.
    pub(super) fn new(
        model: &Model,
        examples: &[Example],
        places: &[usize],
        metric: Option<Metric>,
    ) -> Result<Judge, OptimizeError> {
        let mut sequences = Vec::with_capacity(places.len());
        for &place in places {
            sequences.extend(sequences_of(model, &examples[place], place)?);
        }
        let truth = Truth::of(model, examples, places)?;
        let metric = truth.metric(metric)?;
        Ok(Judge { places: places.to_vec(), sequences, truth, metric })
    }

    /// What the engine is given for all examples.
    pub(super) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether there is something to be right about.
    pub(super) fn is_labelled(&self) -> bool {
        !matches!(self.truth, Truth::Unknown { .. })
    }

    /// What a model answers.
    pub(super) fn ask(&self, engine: &mut dyn Engine) -> Result<Answered, OptimizeError> {
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
            Truth::Unknown { classes: false } => {
                Answers::Vectors(outputs.iter().map(|output| output.data.clone()).collect())
            }
        };
        Ok(Answered { outputs, answers })
    }

    /// The metric's material for answers; `baseline` are those in f32.
    pub(super) fn score(&self, answers: &Answers, baseline: &Answers) -> Result<Box<dyn Scored>, OptimizeError> {
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
                Truth::Unknown { .. } => Value::Null,
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

/// Mean of 1 − cosine of outputs to others.
pub(super) fn drift(outputs: &[Output], baseline: &[Output]) -> f64 {
    let pairs = outputs.iter().zip(baseline);
    pairs.map(|(a, b)| 1.0 - cosine(&a.data, &b.data)).sum::<f64>() / outputs.len().max(1) as f64
}

/// What the engine is given for an example.
fn sequences_of(model: &Model, example: &Example, place: usize) -> Result<Vec<Sequence>, OptimizeError> {
    let of_example = |error: &dyn std::fmt::Display| OptimizeError::Example { place, reason: error.to_string() };
    let prepare = |task, inputs: Value| {
        let body = json!({ "inputs": inputs }).to_string();
        let request = Request::parse(task, body.as_bytes()).map_err(|error| of_example(&error))?;
        Ok(Job::prepare(model, request).map_err(|error| of_example(&error))?.sequences)
    };
    let embeds = !matches!(model.card.head, Head::Classification { .. });
    let task = if embeds { Task::FeatureExtraction } else { Task::TextClassification };
    match example {
        Example::Text { inputs, pair: None, .. } | Example::Plain { inputs, pair: None } => {
            prepare(task, json!(inputs))
        }
        Example::Text { inputs, pair: Some(pair), .. } | Example::Plain { inputs, pair: Some(pair) } if !embeds => {
            prepare(task, json!({ "text": inputs, "text_pair": pair }))
        }
        Example::Similarity { first, second, .. } if embeds => {
            Ok([prepare(task, json!(first))?, prepare(task, json!(second))?].concat())
        }
        Example::Similarity { first, second, .. } => prepare(task, json!({ "text": first, "text_pair": second })),
        Example::Text { .. } | Example::Plain { .. } => {
            Err(of_example(&"the model embeds single texts, not pairs; call the columns of two texts and their score"))
        }
        Example::Entities { .. } | Example::Answer { .. } => Err(unfit(model, example.kind())),
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
            (Kind::Plain, Head::Classification { .. }) => Ok(Truth::Unknown { classes: true }),
            (Kind::Plain, Head::SentenceEmbedding(_) | Head::TokenFeatures { .. }) => {
                Ok(Truth::Unknown { classes: false })
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
        Head::TokenFeatures { .. } => "texts without labels",
        Head::Classification { .. } => "texts with labels, or without",
    };
    OptimizeError::Examples(format!("they are of the kind `{kind}`; {} is judged by {wanted}", model.card.id))
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
