//! What holds of every metric and every interval.

use centuple_receipt::data::Span;
use centuple_receipt::metrics::{
    Accuracy, Average, EntityF1, ExactMatch, F1, LabelAgreement, LogPerplexity, Matthews, MeanCosine, Metric,
    MultiLabelF1, Pearson, Perplexity, Scored, Spearman, TokenF1, WorstCosine,
};
use centuple_receipt::{Bootstrap, BootstrapError};
use proptest::prelude::*;

/// One example of everything: the right class and the given one.
type Example = (u32, u32);

/// Every metric over the same examples.
fn all_metrics(examples: &[Example]) -> Vec<Box<dyn Scored>> {
    let truth: Vec<u32> = examples.iter().map(|example| example.0).collect();
    let given: Vec<u32> = examples.iter().map(|example| example.1).collect();
    let floats = |classes: &[u32]| classes.iter().map(|&class| f64::from(class) / 7.0).collect::<Vec<_>>();
    let words = |classes: &[u32]| classes.iter().map(|class| format!("w{class} x")).collect::<Vec<_>>();
    let sets = |classes: &[u32]| classes.iter().map(|class| (0..*class).collect::<Vec<u32>>()).collect::<Vec<_>>();
    let span = |class: &u32| vec![Span { start: 0, end: 1 + *class as usize, label: "L".to_owned() }];
    let spans = |classes: &[u32]| classes.iter().map(span).collect::<Vec<_>>();
    let right: Vec<Vec<String>> = words(&truth).into_iter().map(|answer| vec![answer]).collect();
    let (x, y) = (floats(&truth), floats(&given));
    let mut metrics: Vec<Box<dyn Scored>> = vec![
        Box::new(Accuracy::new(&truth, &given).unwrap()),
        Box::new(Matthews::new(&truth, &given).unwrap()),
        Box::new(Spearman::new(&x, &y).unwrap()),
        Box::new(Pearson::new(&x, &y).unwrap()),
        Box::new(ExactMatch::new(&right, &words(&given)).unwrap()),
        Box::new(TokenF1::new(&right, &words(&given)).unwrap()),
        Box::new(EntityF1::new(&spans(&truth), &spans(&given)).unwrap()),
        Box::new(MultiLabelF1::new(&sets(&truth), &sets(&given)).unwrap()),
        Box::new(Perplexity::new(&x, &given.iter().map(|tokens| tokens + 1).collect::<Vec<_>>()).unwrap()),
        Box::new(LogPerplexity::from(
            Perplexity::new(&x, &given.iter().map(|tokens| tokens + 1).collect::<Vec<_>>()).unwrap(),
        )),
        Box::new(LabelAgreement::new(&truth, &given).unwrap()),
        Box::new(MeanCosine::new(&y).unwrap()),
        Box::new(WorstCosine::new(&y).unwrap()),
    ];
    for average in [Average::Binary { positive: 1 }, Average::Macro, Average::Micro, Average::Weighted] {
        metrics.push(Box::new(F1::new(&truth, &given, average).unwrap()));
    }
    metrics
}

fn examples() -> impl Strategy<Value = Vec<Example>> {
    proptest::collection::vec((0u32..4, 0u32..4), 1..40)
}

fn near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (a, b) => a == b,
    }
}

#[test]
fn every_metric_is_here() {
    let mut found: Vec<Metric> = all_metrics(&[(0, 1)]).iter().map(|metric| metric.metric()).collect();
    found.sort_by_key(|metric| metric.name());
    let mut all = Metric::ALL.to_vec();
    all.sort_by_key(|metric| metric.name());
    assert_eq!(found, all);
}

proptest! {
    #[test]
    fn order_changes_nothing(examples in examples(), seed: u64) {
        let mut shuffled = examples.clone();
        let key = |example: &Example| u64::from(example.0 * 4 + example.1) ^ seed;
        shuffled.sort_by_key(|example| key(example).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for (one, other) in all_metrics(&examples).iter().zip(all_metrics(&shuffled)) {
            prop_assert!(near(one.point(), other.point()), "{}", one.metric());
        }
    }

    #[test]
    fn a_draw_is_a_list(examples in examples(), draws in proptest::collection::vec(0u32..4, 40)) {
        let draws = &draws[..examples.len()];
        let list: Vec<Example> = examples
            .iter()
            .zip(draws)
            .flat_map(|(example, &draw)| vec![*example; draw as usize])
            .collect();
        let drawn = all_metrics(&examples);
        if list.is_empty() {
            prop_assert!(drawn.iter().all(|metric| metric.value(draws).is_none()));
            return Ok(());
        }
        for (drawn, listed) in drawn.iter().zip(all_metrics(&list)) {
            prop_assert!(near(drawn.value(draws), listed.point()), "{}", drawn.metric());
        }
    }

    #[test]
    fn nothing_differs_from_itself(examples in examples(), seed: u64) {
        let bootstrap = Bootstrap { resamples: 50, seed };
        for metric in all_metrics(&examples) {
            match bootstrap.paired(&*metric, &*metric) {
                Ok(paired) => prop_assert_eq!([paired.difference, paired.low, paired.high], [0.0; 3]),
                Err(error) => prop_assert!(
                    matches!(error, BootstrapError::Undefined { .. } | BootstrapError::TooFew { .. }),
                    "{}", error
                ),
            }
        }
    }

    #[test]
    fn a_symmetric_interval_holds_its_estimate(half in 10usize..100, seed: u64) {
        // As many right as wrong: resampled accuracies lie on both sides of a half.
        let truth = vec![1; 2 * half];
        let given: Vec<u32> = (0..2 * half as u32).map(|index| index % 2).collect();
        let accuracy = Accuracy::new(&truth, &given).unwrap();
        let estimate = Bootstrap { resamples: 1000, seed }.estimate(&accuracy).unwrap();
        prop_assert_eq!(estimate.value, 0.5);
        prop_assert!(estimate.low < 0.5 && 0.5 < estimate.high);
        // Within a third of the normal approximation's 95 %.
        let expected = 1.96 * 2.0 * (0.25 / (2 * half) as f64).sqrt();
        prop_assert!(((estimate.high - estimate.low) / expected - 1.0).abs() < 0.33);
    }

    #[test]
    fn a_seed_is_an_interval(examples in proptest::collection::vec((0u32..4, 0u32..4), 30..40), seed: u64) {
        let bootstrap = Bootstrap { resamples: 60, seed };
        for metric in all_metrics(&examples) {
            prop_assert_eq!(bootstrap.estimate(&*metric), bootstrap.estimate(&*metric));
        }
    }

    #[test]
    fn scores_never_break_a_correlation(
        pairs in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY), 1..30)
    ) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let finite = x.iter().chain(&y).all(|number| number.is_finite());
        let values = [
            Spearman::new(&x, &y).map(|scored| scored.point()),
            Pearson::new(&x, &y).map(|scored| scored.point()),
        ];
        for value in values {
            prop_assert_eq!(value.is_ok(), finite);
            prop_assert!(value.ok().flatten().is_none_or(|value| (-1.0..=1.0).contains(&value)));
        }
    }
}
