//! One token out of one row of logits.

use crate::candidates::largest;
use crate::{Candidate, Candidates, Constraint, Parameters, Peak, Processors, SampleError, numbers, random};

/// A token with its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm of what the model gives for its probability, before any processing.
    pub logprob: f32,
}

/// The chosen token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log-probability by the model, where it is asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens by the model, as many as asked for, the likeliest first.
    pub top: Vec<TokenLogprob>,
}

/// Where a token is to come.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Tokens of prompt and answer before it.
    pub ids: &'a [u32],
    /// Which of the answers.
    pub sequence: u32,
    /// Tokens of the answer before it.
    pub position: u64,
}

/// Chooses tokens as parameters say. It has no state: the same row at the same place gives the same token.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    do_sample: bool,
    seed: u64,
    logprobs: bool,
    top: usize,
}

impl Sampler {
    /// A sampler for parameters; `seed` counts where they say none.
    pub fn new(parameters: &Parameters, seed: u64) -> Self {
        Self {
            do_sample: parameters.do_sample,
            seed: parameters.seed.unwrap_or(seed),
            logprobs: parameters.logprobs || parameters.top_n_tokens > 0,
            top: parameters.top_n_tokens,
        }
    }

    /// Where draws come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The token at a place, out of the logits `row`: `[vocabulary]`, used up. A constraint is told of it. `peak` is that of the
    /// row, if it is known.
    ///
    /// # Errors
    /// Logits that are no numbers, or no token that may come.
    pub fn sample(
        &self,
        processors: &Processors,
        mut constraint: Option<&mut Constraint>,
        place: Place<'_>,
        row: &mut [f32],
        peak: Option<Peak>,
    ) -> Result<Sampled, SampleError> {
        let model = if self.logprobs { Some(Model::new(row, peak, self.top)?) } else { None };
        let untouched = processors.is_empty() && constraint.is_none();
        let raw = if self.logprobs && !untouched { row.to_vec() } else { Vec::new() };
        if let Some(constraint) = &mut constraint {
            constraint.restrict(row)?;
        }
        let candidates = processors.apply(place.ids, row);
        let token = match peak.filter(|_| untouched && !self.do_sample) {
            Some(peak) => peak.token,
            None => self.choose(&candidates, place)?,
        };
        if let Some(constraint) = constraint {
            constraint.accept(token)?;
        }
        let Some(model) = model else { return Ok(Sampled { token, ..Sampled::default() }) };
        let logit = match &candidates {
            Candidates::All(row) if raw.is_empty() => row.get(token as usize),
            Candidates::All(_) | Candidates::Few(_) => raw.get(token as usize),
        };
        let logprob = logit.map(|logit| model.logprob(*logit));
        Ok(Sampled { token, logprob, top: model.top })
    }

    fn choose(&self, candidates: &Candidates<'_>, place: Place<'_>) -> Result<u32, SampleError> {
        if self.do_sample {
            return draw(candidates, random::uniform(self.seed, place.sequence, place.position, 0));
        }
        match candidates {
            Candidates::All(row) => Ok(numbers::argmax(row)?.0 as u32),
            Candidates::Few(few) => few.first().map(|candidate| candidate.token).ok_or(SampleError::NoToken),
        }
    }
}

/// What the model itself says of its tokens.
struct Model {
    log_sum: f64,
    top: Vec<TokenLogprob>,
}

impl Model {
    fn new(row: &[f32], peak: Option<Peak>, top: usize) -> Result<Self, SampleError> {
        let log_sum = peak.map_or_else(|| numbers::log_sum_exp(row), |peak| Ok(peak.log_sum))?;
        let mut model = Self { log_sum, top: Vec::new() };
        let told =
            |candidate: &Candidate| TokenLogprob { token: candidate.token, logprob: model.logprob(candidate.score) };
        model.top = largest(row, top).iter().map(told).collect();
        Ok(model)
    }

    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - self.log_sum) as f32
    }
}

/// The token at a number in [0, 1): probabilities stand behind each other, by token, or the likeliest first if they are few.
///
/// # Errors
/// Scores that are no numbers, or no token of any probability.
pub(crate) fn draw(candidates: &Candidates<'_>, number: f64) -> Result<u32, SampleError> {
    match candidates {
        Candidates::All(scores) => draw_of_all(scores, number),
        Candidates::Few(few) => {
            if few.iter().any(|candidate| candidate.score.is_nan()) {
                return Err(SampleError::NotANumber);
            }
            let best = candidates.best();
            let weights = few.iter().map(|candidate| (candidate.token, numbers::exp(candidate.score - best)));
            if best == f32::NEG_INFINITY {
                return Err(SampleError::NoToken);
            }
            walk(weights, number * candidates.mass(best)).ok_or(SampleError::NoToken)
        }
    }
}

/// Scores whose probabilities are summed up before one of them is looked for.
const BLOCK: usize = 1024;

fn draw_of_all(scores: &[f32], number: f64) -> Result<u32, SampleError> {
    let best = numbers::maximum(scores)?;
    if best == f32::NEG_INFINITY {
        return Err(SampleError::NoToken);
    }
    let sums: Vec<f64> = scores.chunks(BLOCK).map(|block| numbers::sum_of_exps(block, best)).collect();
    let mut left = number * sums.iter().sum::<f64>();
    let mut chosen = 0;
    for (block, sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        chosen = block;
        if left < *sum {
            break;
        }
        left -= sum;
    }
    let start = chosen * BLOCK;
    let block = scores.iter().enumerate().skip(start).take(BLOCK);
    walk(block.map(|(token, score)| (token as u32, numbers::exp(score - best))), left).ok_or(SampleError::NoToken)
}

/// The token at which the sum of weights passes `left`, or the last that has a weight.
fn walk(weights: impl Iterator<Item = (u32, f32)>, mut left: f64) -> Option<u32> {
    let mut last = None;
    for (token, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        last = Some(token);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Different tokens of flat candidates, drawn one after the other, each by its probability among those that are left.
pub(crate) fn draw_distinct(scores: &[f32], count: usize, number: impl Fn(u32) -> f64) -> Vec<usize> {
    let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f32> = scores.iter().map(|score| numbers::exp(score - best)).collect();
    let mut drawn = Vec::with_capacity(count);
    for draw in 0..count as u32 {
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let all = weights.iter().enumerate().map(|(index, weight)| (index as u32, *weight));
        let Some(index) = walk(all, number(draw) * total) else { break };
        drawn.push(index as usize);
        if let Some(weight) = weights.get_mut(index as usize) {
            *weight = 0.0;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;

    #[test]
    fn a_known_peak_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let row: Vec<f32> = (0..500).map(|token| ((token * 37) % 211) as f32 / 20.0).collect();
        let peak = Peak { token: numbers::argmax(&row)?.0 as u32, log_sum: numbers::log_sum_exp(&row)? };
        let place = Place { ids: &[1, 2], sequence: 0, position: 0 };
        let greedy = Parameters { logprobs: true, top_n_tokens: 2, ..Parameters::default() };
        let drawn = Parameters { do_sample: true, ..greedy.clone() };
        let barred = Parameters { suppress_tokens: Some(vec![peak.token]), ..greedy.clone() };
        let context = Context { prompt: 2, source: &[1, 2], longest: 9, vocabulary: row.len() };
        for parameters in [greedy, drawn, barred] {
            let processors = Processors::new(&parameters, context)?;
            let sample = |peak| Sampler::new(&parameters, 7).sample(&processors, None, place, &mut row.clone(), peak);
            assert_eq!(sample(None)?, sample(Some(peak))?);
        }
        Ok(())
    }
}
