//! From logits to scores, and the best of them.

/// Softmax of finite logits, with f64 sums; always finite.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) - f64::from(largest)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}

/// The logistic function of a finite logit.
pub(crate) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Place of the largest number, the first of equals; 0 where there is none.
pub(crate) fn largest(numbers: &[f32]) -> usize {
    let better = |best: usize, place: usize| if numbers[place] > numbers[best] { place } else { best };
    (1..numbers.len()).fold(0, better)
}

/// Places of the best scores, best first; equal ones stay in their order.
pub(crate) fn best(scores: &[f32], most: usize) -> Vec<usize> {
    best_by(scores.len(), most, |place| scores[place])
}

/// As [`best`], of `count` scores that are computed where they are looked at.
pub(crate) fn best_by(count: usize, most: usize, score: impl Fn(usize) -> f32) -> Vec<usize> {
    let order = |a: &usize, b: &usize| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
    let mut places: Vec<usize> = (0..count).collect();
    if most < count {
        if most > 0 {
            places.select_nth_unstable_by(most - 1, order);
        }
        places.truncate(most);
    }
    places.sort_unstable_by(order);
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(prop_oneof![-20f32..20.0, Just(f32::MAX), Just(f32::MIN)], 1..12)
    }

    proptest! {
        #[test]
        fn softmax_is_a_distribution(logits in logits()) {
            let scores = softmax(&logits);
            prop_assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            prop_assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
        }

        #[test]
        fn sigmoid_is_a_probability(logits in logits()) {
            prop_assert!(logits.into_iter().map(sigmoid).all(|score| (0.0..=1.0).contains(&score)));
        }

        #[test]
        fn the_best_are_the_head_of_all(scores in logits(), most in 0usize..15) {
            let all = best(&scores, usize::MAX);
            prop_assert!(all.is_sorted_by(|a, b| scores[*a] >= scores[*b]));
            prop_assert_eq!(all[0], largest(&scores));
            prop_assert_eq!(&best(&scores, most)[..], &all[..most.min(all.len())]);
        }
    }
}
