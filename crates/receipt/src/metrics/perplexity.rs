//! Perplexity: the exponential of the mean negative log-likelihood of a token.

use super::{Metric, MetricError, Scored, check_finite, check_lengths};

/// Perplexity over all predicted tokens of all texts.
#[derive(Clone, Debug)]
pub struct Perplexity {
    losses: Vec<f64>,
    tokens: Vec<u32>,
}

impl Perplexity {
    /// From each text's summed negative log-likelihood, in nats, and the number of tokens that it sums.
    ///
    /// # Errors
    /// There is no text, not one count for each, or a likelihood is not finite.
    pub fn new(losses: &[f64], tokens: &[u32]) -> Result<Self, MetricError> {
        check_lengths(Metric::Perplexity, losses.len(), tokens.len())?;
        check_finite(Metric::Perplexity, losses)?;
        Ok(Self { losses: losses.to_vec(), tokens: tokens.to_vec() })
    }
}

impl Scored for Perplexity {
    fn metric(&self) -> Metric {
        Metric::Perplexity
    }

    fn examples(&self) -> usize {
        self.losses.len()
    }

    /// Also `None` where the exponential is beyond f64.
    fn value(&self, draws: &[u32]) -> Option<f64> {
        assert_eq!(self.losses.len(), draws.len(), "a draw counts every example");
        let loss: f64 = self.losses.iter().zip(draws).map(|(loss, &draw)| loss * f64::from(draw)).sum();
        let tokens: u64 =
            self.tokens.iter().zip(draws).map(|(&tokens, &draw)| u64::from(tokens) * u64::from(draw)).sum();
        // Not `f64::exp`, whose last bit depends on the system's library.
        (tokens > 0).then(|| libm::exp(loss / tokens as f64)).filter(|perplexity| perplexity.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_weigh_the_same_in_every_text() {
        let perplexity = Perplexity::new(&[2.0 * 3f64.ln(), 4.0 * 3f64.ln(), 0.0], &[2, 4, 0]).expect("three texts");
        assert!((perplexity.point().expect("tokens") - 3.0).abs() < 1e-12);
        assert_eq!(perplexity.value(&[0, 0, 5]), None);
        assert_eq!(Perplexity::new(&[1e9], &[1]).expect("a text").point(), None);
    }
}
