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

    /// Mean negative log-likelihood of a token.
    fn mean(&self, draws: &[u32]) -> Option<f64> {
        assert_eq!(self.losses.len(), draws.len(), "a draw counts every example");
        let loss: f64 = self.losses.iter().zip(draws).map(|(loss, &draw)| loss * f64::from(draw)).sum();
        let tokens: u64 =
            self.tokens.iter().zip(draws).map(|(&tokens, &draw)| u64::from(tokens) * u64::from(draw)).sum();
        (tokens > 0).then(|| loss / tokens as f64)
    }
}

/// The logarithm of [`Perplexity`], by which differences are shares of it: one point, a hundredth, is one percent.
#[derive(Clone, Debug)]
pub struct LogPerplexity(Perplexity);

impl From<Perplexity> for LogPerplexity {
    fn from(perplexity: Perplexity) -> Self {
        Self(perplexity)
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
        // Not `f64::exp`, whose last bit depends on the system's library.
        self.mean(draws).map(libm::exp).filter(|perplexity| perplexity.is_finite())
    }
}

impl Scored for LogPerplexity {
    fn metric(&self) -> Metric {
        Metric::LogPerplexity
    }

    fn examples(&self) -> usize {
        self.0.losses.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        self.0.mean(draws)
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
        let log = LogPerplexity::from(perplexity);
        assert!((log.point().expect("tokens") - 3f64.ln()).abs() < 1e-12);
        assert_eq!(Metric::LogPerplexity.drop(2.0, 2.01), Metric::LogPerplexity.points(2.01 - 2.0));
    }
}
