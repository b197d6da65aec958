//! What changes logits before a token is chosen, with the meaning and in the order of transformers.
//!
//! *Processors* look at the tokens so far and change single logits. *Warpers* come after them, only where tokens are drawn, and
//! leave fewer candidates. What other interfaces have beside transformers stands next to its kin: `logit_bias` with
//! `sequence_bias`, penalties of presence and frequency after that of repetition.

mod bad_words;
mod begin_suppress;
mod encoder_no_repeat_ngram;
mod encoder_repetition_penalty;
mod epsilon_cutoff;
mod eta_cutoff;
mod exponential_decay;
mod forced_bos;
mod forced_eos;
mod frequency_penalty;
mod logit_bias;
mod min_length;
mod min_p;
mod no_repeat_ngram;
mod remove_invalid;
mod renormalize;
mod repetition_penalty;
mod sequence_bias;
mod suppress;
mod temperature;
mod top_k;
mod top_p;
mod typical;

use crate::{Candidates, ParameterError, Parameters};

/// Changes logits, knowing the tokens so far.
trait Processor: Send + Sync {
    /// `ids` are the tokens of prompt and answer, `scores` one number per token of the vocabulary.
    fn process(&self, ids: &[u32], scores: &mut [f32]);
}

/// Changes what tokens are drawn from.
trait Warper: Send + Sync {
    fn warp(&self, candidates: &mut Candidates<'_>);
}

/// What processors must know beside the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Tokens of the prompt (of a model with an encoder: those that the decoder starts with).
    pub prompt: usize,
    /// The encoder's input, or the prompt where there is no encoder.
    pub source: &'a [u32],
    /// Most tokens of prompt and answer, from [`Parameters::longest`].
    pub longest: usize,
    /// Tokens of the model.
    pub vocabulary: usize,
}

/// All that some parameters do to logits.
#[derive(Default)]
pub struct Processors {
    processors: Vec<Box<dyn Processor>>,
    warpers: Vec<Box<dyn Warper>>,
}

impl Processors {
    /// What parameters ask for; nothing for the defaults.
    ///
    /// # Errors
    /// A token that the model doesn't have.
    pub fn new(parameters: &Parameters, context: Context<'_>) -> Result<Self, ParameterError> {
        check_tokens(parameters, context.vocabulary)?;
        Ok(Self { processors: processors(parameters, context), warpers: warpers(parameters) })
    }

    /// Whether logits are left as they are.
    pub fn is_empty(&self) -> bool {
        self.processors.is_empty() && self.warpers.is_empty()
    }

    /// Changes the logits of the token that follows `ids`: `[vocabulary]`, in place where it can be.
    pub fn apply<'a>(&self, ids: &[u32], scores: &'a mut [f32]) -> Candidates<'a> {
        for processor in &self.processors {
            processor.process(ids, scores);
        }
        let mut candidates = Candidates::All(scores);
        for warper in &self.warpers {
            warper.warp(&mut candidates);
        }
        candidates
    }
}

fn processors(parameters: &Parameters, context: Context<'_>) -> Vec<Box<dyn Processor>> {
    let Context { prompt, source, longest, .. } = context;
    let shortest = parameters.shortest(prompt);
    let eos = || parameters.eos_token_id.clone();
    let mut list: Vec<Box<dyn Processor>> = Vec::new();
    if !parameters.logit_bias.is_empty() {
        list.push(Box::new(logit_bias::LogitBias(parameters.logit_bias.clone())));
    }
    if let Some(biases) = &parameters.sequence_bias {
        list.push(Box::new(sequence_bias::SequenceBias::new(biases)));
    }
    if parameters.encoder_repetition_penalty != 1.0 {
        list.push(Box::new(encoder_repetition_penalty::new(parameters.encoder_repetition_penalty, source)));
    }
    if parameters.repetition_penalty != 1.0 {
        list.push(Box::new(repetition_penalty::RepetitionPenalty(parameters.repetition_penalty)));
    }
    if parameters.presence_penalty != 0.0 || parameters.frequency_penalty != 0.0 {
        let (presence, frequency) = (parameters.presence_penalty, parameters.frequency_penalty);
        list.push(Box::new(frequency_penalty::FrequencyPenalty { presence, frequency, prompt }));
    }
    if parameters.no_repeat_ngram_size > 0 {
        list.push(Box::new(no_repeat_ngram::NoRepeatNgram(parameters.no_repeat_ngram_size)));
    }
    if parameters.encoder_no_repeat_ngram_size > 0 {
        let size = parameters.encoder_no_repeat_ngram_size;
        list.push(Box::new(encoder_no_repeat_ngram::EncoderNoRepeatNgram { size, source: source.to_vec() }));
    }
    if let Some(words) = &parameters.bad_words_ids {
        list.push(Box::new(bad_words::new(words, &parameters.eos_token_id)));
    }
    if shortest > 0 && !parameters.eos_token_id.is_empty() {
        list.push(Box::new(min_length::MinLength { shortest, eos: eos() }));
    }
    if let Some(token) = parameters.forced_bos_token_id {
        list.push(Box::new(forced_bos::ForcedBos(token)));
    }
    if !parameters.forced_eos_token_id.is_empty() {
        list.push(Box::new(forced_eos::ForcedEos { longest, tokens: parameters.forced_eos_token_id.clone() }));
    }
    if parameters.remove_invalid_values {
        list.push(Box::new(remove_invalid::RemoveInvalid));
    }
    if let Some((start, factor)) = parameters.exponential_decay_length_penalty {
        let start = prompt.saturating_add(start);
        list.push(Box::new(exponential_decay::ExponentialDecay { start, factor, eos: eos() }));
    }
    if let Some(tokens) = &parameters.suppress_tokens {
        list.push(Box::new(suppress::Suppress(tokens.clone())));
    }
    if let Some(tokens) = &parameters.begin_suppress_tokens {
        let late = prompt <= 1 && parameters.forced_bos_token_id.is_some();
        let at = prompt + usize::from(late);
        list.push(Box::new(begin_suppress::BeginSuppress { at, tokens: tokens.clone() }));
    }
    if parameters.renormalize_logits && !parameters.do_sample {
        list.push(Box::new(renormalize::Renormalize));
    }
    list
}

fn warpers(parameters: &Parameters) -> Vec<Box<dyn Warper>> {
    let mut list: Vec<Box<dyn Warper>> = Vec::new();
    if !parameters.do_sample {
        return list;
    }
    // Beams need a token beside those that end the text.
    let ends = if parameters.eos_token_id.is_empty() { 1 } else { parameters.eos_token_id.len() };
    let least = if parameters.num_beams > 1 { ends + 1 } else { 1 };
    if parameters.temperature != 1.0 {
        list.push(Box::new(temperature::Temperature(parameters.temperature)));
    }
    if parameters.top_k > 0 {
        list.push(Box::new(top_k::TopK(parameters.top_k.max(least))));
    }
    if parameters.top_p < 1.0 {
        list.push(Box::new(top_p::TopP { mass: parameters.top_p, least }));
    }
    if let Some(part) = parameters.min_p {
        list.push(Box::new(min_p::MinP { part, least }));
    }
    if parameters.typical_p < 1.0 {
        list.push(Box::new(typical::Typical { mass: parameters.typical_p, least }));
    }
    if parameters.epsilon_cutoff > 0.0 {
        list.push(Box::new(epsilon_cutoff::EpsilonCutoff { epsilon: parameters.epsilon_cutoff, least }));
    }
    if parameters.eta_cutoff > 0.0 {
        list.push(Box::new(eta_cutoff::EtaCutoff { epsilon: parameters.eta_cutoff, least }));
    }
    if parameters.renormalize_logits {
        list.push(Box::new(renormalize::Renormalize));
    }
    list
}

/// Refuses tokens that the model doesn't have.
fn check_tokens(parameters: &Parameters, vocabulary: usize) -> Result<(), ParameterError> {
    let sequences = parameters.sequence_bias.iter().flatten().flat_map(|(sequence, _)| sequence);
    check("logit_bias", parameters.logit_bias.keys(), vocabulary)?;
    check("sequence_bias", sequences, vocabulary)?;
    check("bad_words_ids", parameters.bad_words_ids.iter().flatten().flatten(), vocabulary)?;
    check("forced_bos_token_id", parameters.forced_bos_token_id.iter(), vocabulary)?;
    check("forced_eos_token_id", parameters.forced_eos_token_id.iter(), vocabulary)
}

fn check<'a>(
    name: &'static str,
    mut tokens: impl Iterator<Item = &'a u32>,
    vocabulary: usize,
) -> Result<(), ParameterError> {
    let beyond = tokens.find(|token| **token as usize >= vocabulary);
    beyond.map_or(Ok(()), |&token| Err(ParameterError::Vocabulary { name, token, vocabulary }))
}

/// Forbids tokens.
fn forbid(tokens: &[u32], scores: &mut [f32]) {
    for token in tokens {
        if let Some(score) = scores.get_mut(*token as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Allows these tokens alone, all alike.
fn force(tokens: &[u32], scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    for token in tokens {
        if let Some(score) = scores.get_mut(*token as usize) {
            *score = 0.0;
        }
    }
}
