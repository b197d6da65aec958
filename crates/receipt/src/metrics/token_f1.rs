//! Token F1: how many words an answer shares with the right one that is nearest, as SQuAD 1.1 counts.

use super::mean::mean;
use super::{Metric, MetricError, Scored, check_lengths, squad};

/// Mean over questions of the best F1 with a right answer.
#[derive(Clone, Debug)]
pub struct TokenF1(Vec<f64>);

impl TokenF1 {
    /// From the right answers of each question and the answer that was given.
    ///
    /// # Errors
    /// There is no question, not one answer for each, or a question without a right answer.
    pub fn new<A: AsRef<str>, P: AsRef<str>>(answers: &[Vec<A>], given: &[P]) -> Result<Self, MetricError> {
        best(Metric::TokenF1, answers, given, squad::overlap).map(Self)
    }
}

/// For each question the best score of the given answer against a right one.
pub(super) fn best<A: AsRef<str>, P: AsRef<str>>(
    metric: Metric,
    answers: &[Vec<A>],
    given: &[P],
    score: impl Fn(&str, &str) -> f64,
) -> Result<Vec<f64>, MetricError> {
    check_lengths(metric, answers.len(), given.len())?;
    let one = |(example, (answers, given)): (usize, (&Vec<A>, &P))| {
        let scores = answers.iter().map(|answer| score(answer.as_ref(), given.as_ref()));
        scores.max_by(f64::total_cmp).ok_or(MetricError::NoAnswer { metric, example })
    };
    answers.iter().zip(given).enumerate().map(one).collect()
}

impl Scored for TokenF1 {
    fn metric(&self) -> Metric {
        Metric::TokenF1
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        mean(&self.0, draws)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_needs_an_answer() {
        let error = TokenF1::new(&[vec!["x"], vec![]], &["x", "y"]).expect_err("the second has none");
        assert_eq!(error, MetricError::NoAnswer { metric: Metric::TokenF1, example: 1 });
    }
}
