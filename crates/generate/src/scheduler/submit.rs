//! Taking requests in, or refusing them.

use super::group::{Group, Mode, Sequence};
use super::{Request, RequestId, Scheduler};
use crate::{BeamSearch, Context, ParameterError, Parameters, Processors, Refusal, Sampler, Scope};

impl Scheduler {
    /// Takes a request, which then waits for its turn.
    ///
    /// # Errors
    /// Parameters without a meaning, or a request that the model or the cache could never hold.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Refusal> {
        let longest = self.check(&request)?;
        let group = Group::new(self.last + 1, request, longest, self.limits.vocabulary)?;
        self.last += 1;
        self.waiting.insert(self.last, group);
        Ok(self.last)
    }

    /// Most tokens of prompt and answer of a request that can be held.
    fn check(&self, request: &Request) -> Result<usize, Refusal> {
        let limits = &self.limits;
        let Request { prompt, source, parameters, .. } = request;
        parameters.check()?;
        if prompt.is_empty() || source.as_ref().is_some_and(Vec::is_empty) {
            return Err(Refusal::EmptyPrompt);
        }
        let vocabulary = limits.vocabulary;
        let beyond = prompt.iter().chain(source.iter().flatten()).find(|id| **id as usize >= vocabulary);
        if let Some(&id) = beyond {
            return Err(Refusal::Vocabulary { id, vocabulary });
        }
        if !parameters.stop_strings.is_empty() && request.decoder.is_none() {
            let reason = "stop_strings need a tokenizer, which this model doesn't have".to_owned();
            return Err(ParameterError::Combination(reason).into());
        }
        if request.constraint.is_some() && parameters.num_beams > 1 {
            let reason = "a constraint and num_beams can't be had together; leave num_beams out".to_owned();
            return Err(ParameterError::Combination(reason).into());
        }
        let longest = match parameters.longest(prompt.len(), Some(limits.positions)) {
            Ok(longest) if longest <= limits.positions => longest,
            Ok(longest) => return Err(too_long(prompt.len(), longest - prompt.len(), limits.positions)),
            Err(_) if prompt.len() >= limits.positions => return Err(too_long(prompt.len(), 1, limits.positions)),
            Err(error) => return Err(error.into()),
        };
        let tokens = source.as_ref().map_or(0, Vec::len);
        if tokens > limits.source_positions {
            return Err(Refusal::SourceTooLong { tokens, maximum: limits.source_positions });
        }
        let sequences = width(parameters);
        if sequences > limits.sequences_per_step {
            return Err(Refusal::Sequences { sequences, maximum: limits.sequences_per_step });
        }
        let shared = prompt.len() / limits.page_tokens.max(1);
        let own = self.pool.pages_for(longest).saturating_sub(shared);
        let needed = self.pool.pages_for(tokens).saturating_add(shared).saturating_add(own.saturating_mul(sequences));
        if needed > limits.pages {
            return Err(Refusal::Memory { needed, pages: limits.pages, page_tokens: limits.page_tokens });
        }
        Ok(longest)
    }
}

fn too_long(prompt: usize, new: usize, maximum: usize) -> Refusal {
    Refusal::TooLong { prompt, new, maximum }
}

/// Most sequences that run at once for a request.
fn width(parameters: &Parameters) -> usize {
    parameters.num_beams.max(parameters.num_return_sequences)
}

impl Group {
    fn new(id: RequestId, request: Request, longest: usize, vocabulary: usize) -> Result<Self, ParameterError> {
        let Request { prompt, source, parameters, seed, client, decoder, constraint } = request;
        let context = Context { prompt: prompt.len(), source: source.as_ref().unwrap_or(&prompt), longest, vocabulary };
        let processors = Processors::new(&parameters, context)?;
        let sampler = Sampler::new(&parameters, seed);
        let mode = if parameters.num_beams > 1 {
            Mode::Beams(Box::new(BeamSearch::new(&parameters, &prompt, longest, sampler.seed())))
        } else {
            Mode::Sampled { begun: false }
        };
        // With an encoder, what the pages hold depends on its input too.
        let scope = match client.filter(|_| source.is_none()) {
            Some(client) => Scope::Shared(client),
            None => Scope::Private(id),
        };
        Ok(Self {
            id,
            scope,
            prompt: prompt.len(),
            longest,
            width: width(&parameters),
            processors,
            sampler,
            mode,
            decoder,
            constraint,
            encoded: source.is_none(),
            source: source.unwrap_or_default(),
            source_pages: Vec::new(),
            sequences: vec![Sequence::new(0, prompt)],
            parameters,
        })
    }
}
