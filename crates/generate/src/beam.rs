//! Beam search, with the scores, the order and the end that transformers gives it.
//!
//! Where transformers starts with as many beams as asked for, all but one at -10⁹, this starts with one: both go on with the same
//! tokens. Ties go to the earlier beam and the smaller token.

use crate::candidates::Candidate;
use crate::sampler::draw_distinct;
use crate::{Candidates, EarlyStopping, Parameters, Processors, SampleError, numbers, random};

/// A finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Tokens of prompt and answer.
    pub ids: Vec<u32>,
    /// Sum of the log-probabilities of the answer, divided by its length to the power of `length_penalty`.
    pub score: f32,
}

/// How a beam came about in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Index of the beam before the step that it goes on from.
    pub parent: usize,
    /// The token it adds.
    pub token: u32,
}

/// A beam that is still open.
#[derive(Clone, Debug)]
struct Beam {
    ids: Vec<u32>,
    /// Sum of log-probabilities.
    score: f32,
}

/// A continuation of a beam that is looked at in a step.
struct Continuation {
    branch: Branch,
    score: f32,
    ids: Vec<u32>,
    ends: bool,
}

/// The state of one search.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    beams: usize,
    returned: usize,
    early: EarlyStopping,
    length_penalty: f64,
    eos: Vec<u32>,
    /// Where draws come from, if continuations are drawn.
    seed: Option<u64>,
    prompt: usize,
    longest: usize,
    open: Vec<Beam>,
    /// The best first.
    finished: Vec<Hypothesis>,
    improvable: bool,
    done: bool,
}

impl BeamSearch {
    /// A search from a prompt up to `longest` tokens; `seed` is for parameters that draw.
    pub fn new(parameters: &Parameters, prompt: &[u32], longest: usize, seed: u64) -> Self {
        Self {
            beams: parameters.num_beams,
            returned: parameters.num_return_sequences,
            early: parameters.early_stopping,
            length_penalty: f64::from(parameters.length_penalty),
            eos: parameters.eos_token_id.clone(),
            seed: parameters.do_sample.then_some(seed),
            prompt: prompt.len(),
            longest,
            open: vec![Beam { ids: prompt.to_vec(), score: 0.0 }],
            finished: Vec::new(),
            improvable: true,
            done: false,
        }
    }

    /// The tokens of each open beam. A step needs one row of logits for each, in this order.
    pub fn open(&self) -> impl Iterator<Item = &[u32]> {
        self.open.iter().map(|beam| beam.ids.as_slice())
    }

    /// Whether the search has ended.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What was found, the best first; at most `num_return_sequences`.
    pub fn found(&self) -> &[Hypothesis] {
        self.finished.get(..self.returned).unwrap_or(&self.finished)
    }

    /// Goes on by one token. `rows` are logits, `[open beams, vocabulary]`, and are used up; `stops` says whether
    /// tokens end with a stop string. Gives the new open beams in their order.
    ///
    /// # Errors
    /// Rows of another number, logits that are no numbers, or no token that may come.
    pub fn advance(
        &mut self,
        processors: &Processors,
        rows: &mut [f32],
        stops: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<Vec<Branch>, SampleError> {
        let continuations = self.continuations(processors, rows, stops)?;
        self.finish(&continuations);
        let open = continuations.into_iter().filter(|continuation| !continuation.ends).take(self.beams);
        let (open, branches): (Vec<Beam>, Vec<Branch>) = open
            .map(|continuation| (Beam { ids: continuation.ids, score: continuation.score }, continuation.branch))
            .unzip();
        self.open = open;
        self.look_ahead();
        Ok(if self.done { Vec::new() } else { branches })
    }

    /// The best continuations of all beams, the best first. There are enough that as many as beams are open.
    fn continuations(
        &self,
        processors: &Processors,
        rows: &mut [f32],
        stops: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<Vec<Continuation>, SampleError> {
        let count = self.beams.saturating_mul((1 + self.eos.len()).max(2));
        let vocabulary = rows.len().checked_div(self.open.len()).unwrap_or(0);
        if vocabulary == 0 || vocabulary.saturating_mul(self.open.len()) != rows.len() {
            let found = format!("{} logits for {} beams", rows.len(), self.open.len());
            return Err(SampleError::Contract(found));
        }
        let mut pool = Vec::new();
        for (parent, (beam, row)) in self.open.iter().zip(rows.chunks_exact_mut(vocabulary)).enumerate() {
            let whole = numbers::log_sum_exp(row)?;
            row.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - whole) as f32);
            let mut candidates = processors.apply(&beam.ids, row);
            candidates.map(|score| score + beam.score);
            let few = if self.seed.is_some() { candidates.sorted() } else { candidates.largest(count) };
            if matches!(candidates, Candidates::All(_)) && candidates.best().is_nan() {
                return Err(SampleError::NotANumber);
            }
            pool.extend(few.into_iter().filter(|few| few.score > f32::NEG_INFINITY).map(|few| (parent, few)));
        }
        // Stable, so of equals the earlier beam goes first.
        pool.sort_by(|left, right| right.1.score.total_cmp(&left.1.score));
        let chosen = self.choose(pool, count);
        if chosen.is_empty() {
            return Err(SampleError::NoToken);
        }
        Ok(chosen.into_iter().map(|(parent, candidate)| self.continuation(parent, candidate, stops)).collect())
    }

    /// The first of sorted candidates, or as many drawn ones.
    fn choose(&self, mut pool: Vec<(usize, Candidate)>, count: usize) -> Vec<(usize, Candidate)> {
        let Some(seed) = self.seed else {
            pool.truncate(count);
            return pool;
        };
        let scores: Vec<f32> = pool.iter().map(|(_, candidate)| candidate.score).collect();
        let position = self.new_tokens() as u64;
        let drawn = draw_distinct(&scores, count, |draw| random::uniform(seed, 0, position, draw));
        drawn.into_iter().filter_map(|index| pool.get(index).copied()).collect()
    }

    fn continuation(&self, parent: usize, candidate: Candidate, stops: &mut dyn FnMut(&[u32]) -> bool) -> Continuation {
        let mut ids = self.open.get(parent).map(|beam| beam.ids.clone()).unwrap_or_default();
        ids.push(candidate.token);
        let ends = self.eos.contains(&candidate.token) || ids.len() >= self.longest || stops(&ids);
        Continuation { branch: Branch { parent, token: candidate.token }, score: candidate.score, ids, ends }
    }

    /// New tokens of the open beams.
    fn new_tokens(&self) -> usize {
        self.open.first().map_or(0, |beam| beam.ids.len().saturating_sub(self.prompt))
    }

    /// Takes in the ends among the best continuations.
    fn finish(&mut self, continuations: &[Continuation]) {
        let full = self.finished.len() >= self.beams;
        if !self.improvable || full && self.early == EarlyStopping::Yes {
            return;
        }
        let divisor = self.divisor(self.new_tokens() + 1);
        for end in continuations.iter().take(self.beams).filter(|continuation| continuation.ends) {
            self.finished.push(Hypothesis { ids: end.ids.clone(), score: end.score / divisor });
        }
        self.finished.sort_by(|left, right| right.score.total_cmp(&left.score));
        self.finished.truncate(self.beams);
    }

    fn divisor(&self, new_tokens: usize) -> f32 {
        (new_tokens as f64).powf(self.length_penalty) as f32
    }

    /// Decides whether to go on: whether the best open beam could still replace the worst finished one.
    fn look_ahead(&mut self) {
        let full = self.finished.len() >= self.beams;
        let length = match self.early {
            EarlyStopping::Never if self.length_penalty > 0.0 => self.longest.saturating_sub(self.prompt),
            EarlyStopping::Never | EarlyStopping::No | EarlyStopping::Yes => self.new_tokens(),
        };
        let best = self.open.first().map(|beam| beam.score / self.divisor(length));
        let worst = self.finished.last().filter(|_| full).map(|hypothesis| hypothesis.score);
        let better = match (best, worst) {
            (Some(best), Some(worst)) => best > worst,
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.improvable &= better;
        self.done = !self.improvable || full && self.early == EarlyStopping::Yes;
    }
}
