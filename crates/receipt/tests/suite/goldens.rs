//! Metrics and intervals, held against scikit-learn, scipy, seqeval, transformers and numpy.

use std::path::Path;

use centuple_receipt::data::{Span, tagged_spans};
use centuple_receipt::metrics::{
    Accuracy, Average, EntityF1, ExactMatch, F1, Matthews, MultiLabelF1, Pearson, Perplexity, Scored, Spearman, TokenF1,
};
use centuple_receipt::{Bootstrap, Estimate};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Largest accepted difference.
const TOLERANCE: f64 = 1e-12;

fn golden<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name).with_extension("json");
    let cases: Vec<T> = serde_json::from_slice(&std::fs::read(path).expect("the goldens are there")).expect("JSON");
    assert!(!cases.is_empty());
    cases
}

#[track_caller]
fn close(found: Option<f64>, expected: Option<f64>) {
    match (found, expected) {
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{found} instead of {expected}");
        }
        (None, None) => {}
        (_, _) => panic!("{found:?} instead of {expected:?}"),
    }
}

#[test]
fn one_label_per_example() {
    #[derive(Deserialize)]
    struct Case {
        truth: Vec<u32>,
        predicted: Vec<u32>,
        accuracy: f64,
        f1: Option<f64>,
        f1_macro: f64,
        f1_micro: f64,
        f1_weighted: f64,
        matthews: f64,
    }
    for case in golden::<Case>("labels") {
        let (truth, predicted) = (&case.truth, &case.predicted);
        let f1 = |average| F1::new(truth, predicted, average).expect("labels").point();
        close(Accuracy::new(truth, predicted).expect("labels").point(), Some(case.accuracy));
        close(f1(Average::Macro), Some(case.f1_macro));
        close(f1(Average::Micro), Some(case.f1_micro));
        close(f1(Average::Weighted), Some(case.f1_weighted));
        close(Matthews::new(truth, predicted).expect("labels").point(), Some(case.matthews));
        if case.f1.is_some() {
            close(f1(Average::Binary { positive: 1 }), case.f1);
        }
    }
}

#[test]
fn sets_of_labels() {
    #[derive(Deserialize)]
    struct Case {
        truth: Vec<Vec<u32>>,
        predicted: Vec<Vec<u32>>,
        f1_micro: f64,
    }
    for case in golden::<Case>("label_sets") {
        close(MultiLabelF1::new(&case.truth, &case.predicted).expect("labels").point(), Some(case.f1_micro));
    }
}

#[test]
fn correlations() {
    #[derive(Deserialize)]
    struct Case {
        truth: Vec<f64>,
        predicted: Vec<f64>,
        spearman: Option<f64>,
        pearson: Option<f64>,
    }
    for case in golden::<Case>("scores") {
        close(Spearman::new(&case.truth, &case.predicted).expect("scores").point(), case.spearman);
        close(Pearson::new(&case.truth, &case.predicted).expect("scores").point(), case.pearson);
    }
}

#[test]
fn answers() {
    #[derive(Deserialize)]
    struct Case {
        answers: Vec<String>,
        given: String,
        exact_match: f64,
        token_f1: f64,
    }
    for Case { answers, given, exact_match, token_f1 } in golden("answers") {
        let (answers, given) = ([answers], [given]);
        close(ExactMatch::new(&answers, &given).expect("answers").point(), Some(exact_match));
        close(TokenF1::new(&answers, &given).expect("answers").point(), Some(token_f1));
    }
}

#[test]
fn entities() {
    #[derive(Deserialize)]
    struct Case {
        truth: Vec<Vec<String>>,
        predicted: Vec<Vec<String>>,
        entities: Vec<Vec<(String, usize, usize)>>,
        f1: f64,
    }
    let spans = |texts: &[Vec<String>]| -> Vec<Vec<Span>> {
        texts.iter().map(|tags| tagged_spans(tags).expect("sound tags")).collect()
    };
    for case in golden::<Case>("tags") {
        let (truth, predicted) = (spans(&case.truth), spans(&case.predicted));
        for (spans, expected) in predicted.iter().zip(case.entities) {
            let expected = expected.into_iter().map(|(label, start, end)| Span { start, end, label });
            assert_eq!(*spans, expected.collect::<Vec<_>>());
        }
        close(EntityF1::new(&truth, &predicted).expect("texts").point(), Some(case.f1));
    }
}

#[test]
fn perplexity() {
    #[derive(Deserialize)]
    struct Case {
        losses: Vec<f64>,
        tokens: Vec<u32>,
        perplexity: f64,
    }
    for case in golden::<Case>("losses") {
        close(Perplexity::new(&case.losses, &case.tokens).expect("texts").point(), Some(case.perplexity));
    }
}

#[test]
fn intervals() {
    #[derive(Deserialize)]
    struct Case {
        metric: String,
        truth: Vec<f64>,
        baseline: Vec<f64>,
        candidate: Vec<f64>,
        resamples: u32,
        seed: String,
        estimate: [f64; 3],
        paired: [f64; 3],
    }
    for case in golden::<Case>("intervals") {
        let scored = |system: &[f64]| -> Box<dyn Scored> {
            let classes = |values: &[f64]| values.iter().map(|&class| class as u32).collect::<Vec<_>>();
            match case.metric.as_str() {
                "spearman" => Box::new(Spearman::new(&case.truth, system).expect("scores")),
                "f1_macro" => {
                    Box::new(F1::new(&classes(&case.truth), &classes(system), Average::Macro).expect("labels"))
                }
                other => panic!("{other}"),
            }
        };
        let bootstrap = Bootstrap { resamples: case.resamples, seed: case.seed.parse().expect("a seed") };
        let (baseline, candidate) = (scored(&case.baseline), scored(&case.candidate));
        let Estimate { value, low, high } = bootstrap.estimate(&*baseline).expect("an interval");
        let paired = bootstrap.paired(&*baseline, &*candidate).expect("an interval");
        let pairs = [value, low, high].into_iter().zip(case.estimate);
        for (found, expected) in pairs.chain([paired.difference, paired.low, paired.high].into_iter().zip(case.paired))
        {
            close(Some(found), Some(expected));
        }
        assert_eq!((paired.resamples, paired.seed), (case.resamples, bootstrap.seed));
    }
}
