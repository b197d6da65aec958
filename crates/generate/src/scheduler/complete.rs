//! What the logits of a step mean for its requests.

use super::group::{Group, Mode, Sequence};
use super::plan::{Part, Planned};
use super::{Finish, Scheduler, Update};
use crate::{BeamSearch, Logits, PagePool, Peak, Place, SampleError, Sampled};

/// Some rows of a step's logits.
struct Rows<'a> {
    values: &'a mut [f32],
    peaks: &'a [Option<Peak>],
}

impl<'a> Rows<'a> {
    /// Cuts off the first so many rows; no values if there are fewer.
    fn take(&mut self, rows: usize, vocabulary: usize) -> Rows<'a> {
        let count = rows.saturating_mul(vocabulary);
        let (values, rest) = std::mem::take(&mut self.values).split_at_mut_checked(count).unwrap_or_default();
        let (peaks, others) = self.peaks.split_at_checked(rows).unwrap_or((self.peaks, &[]));
        (self.values, self.peaks) = (rest, others);
        Rows { values, peaks }
    }
}

impl Scheduler {
    /// Takes the logits of the planned step, in the order of its spans, and says what each request got. The logits are used up.
    pub fn complete(&mut self, logits: &mut Logits) -> Vec<Update> {
        let vocabulary = self.limits.vocabulary;
        let mut updates = Vec::new();
        let mut rest = Rows { values: &mut logits.values, peaks: &logits.peaks };
        for planned in std::mem::take(&mut self.planned) {
            let rows = rest.take(planned.rows(), vocabulary);
            let Some(mut group) = self.running.remove(&planned.request) else { continue };
            let outcome = if rows.values.len() == planned.rows().saturating_mul(vocabulary) {
                group.take(&planned, rows, &mut self.pool, &mut updates)
            } else {
                Err(SampleError::Contract("too few logits".to_owned()))
            };
            match outcome {
                Ok(accepted) => self.statistics.accepted_tokens += accepted as u64,
                Err(error) => {
                    group.fail(&error.to_string(), &mut updates);
                    group.release(&mut self.pool);
                    continue;
                }
            }
            if !group.sequences.is_empty() {
                self.running.insert(planned.request, group);
            } else {
                group.release(&mut self.pool);
            }
        }
        updates
    }
}

impl Group {
    /// Takes what a step gave. Gives the number of guesses that were right.
    fn take(
        &mut self,
        planned: &Planned,
        rows: Rows<'_>,
        pool: &mut PagePool,
        updates: &mut Vec<Update>,
    ) -> Result<usize, SampleError> {
        self.encoded |= planned.encodes;
        for part in &planned.parts {
            if let Some(sequence) = self.sequences.get_mut(part.place) {
                sequence.computed += part.tokens;
                sequence.copy = None;
                sequence.publish(self.scope, pool);
            }
        }
        if !planned.ready {
            return Ok(0);
        }
        match &self.mode {
            Mode::Beams(_) => self.advance_beams(rows.values, pool, updates).map(|()| 0),
            Mode::Sampled { begun: false } if self.width > 1 => self.begin(rows.values, pool, updates).map(|()| 0),
            Mode::Sampled { .. } => self.sample(&planned.parts, rows, pool, updates),
        }
    }

    /// Chooses the first token of each answer out of one row.
    fn begin(&mut self, row: &mut [f32], pool: &mut PagePool, updates: &mut Vec<Update>) -> Result<(), SampleError> {
        let prompt = self.sequences.first().map(|first| first.ids.clone()).unwrap_or_default();
        let (mut open, mut first) = (Vec::new(), Vec::new());
        for index in 0..self.width as u32 {
            let mut answer = Sequence::new(index, prompt.clone());
            let update = self.choose(&mut answer, Rows { values: &mut row.to_vec(), peaks: &[] }, &[])?.0;
            if update.finish.is_none() {
                open.push(answer);
            }
            first.push(update);
        }
        updates.append(&mut first);
        let branches = open.iter_mut().map(|answer| (0, answer.index, std::mem::take(&mut answer.ids))).collect();
        self.branch(branches, pool);
        for (sequence, answer) in self.sequences.iter_mut().zip(open) {
            sequence.text = answer.text;
            sequence.constraint = answer.constraint;
        }
        self.mode = Mode::Sampled { begun: true };
        Ok(())
    }

    /// Chooses the next tokens of each open answer.
    fn sample(
        &mut self,
        parts: &[Part],
        mut rows: Rows<'_>,
        pool: &mut PagePool,
        updates: &mut Vec<Update>,
    ) -> Result<usize, SampleError> {
        self.mode = Mode::Sampled { begun: true };
        let count: usize = parts.iter().map(|part| 1 + part.drafts.len()).sum();
        let vocabulary = rows.values.len() / count.max(1);
        let mut accepted = 0;
        let mut open = Vec::new();
        let mut sequences = std::mem::take(&mut self.sequences).into_iter();
        for part in parts {
            let Some(mut sequence) = sequences.next() else { break };
            let own = rows.take(1 + part.drafts.len(), vocabulary);
            let chosen = self.choose(&mut sequence, own, &part.drafts);
            let (update, right) = match chosen {
                Ok(chosen) => chosen,
                Err(error) => {
                    open.push(sequence);
                    open.extend(sequences);
                    self.sequences = open;
                    return Err(error);
                }
            };
            accepted += right;
            sequence.computed += right;
            sequence.publish(self.scope, pool);
            if update.finish.is_some() {
                sequence.release(matches!(self.scope, crate::Scope::Shared(_)), pool);
            } else {
                open.push(sequence);
            }
            updates.push(update);
        }
        self.sequences = open;
        Ok(accepted)
    }

    /// Chooses a token, and for each guess that is right another one. Gives the number of these.
    fn choose(&self, sequence: &mut Sequence, rows: Rows<'_>, drafts: &[u32]) -> Result<(Update, usize), SampleError> {
        if sequence.ids.len() == self.prompt {
            sequence.text = self.text_stream(&sequence.ids);
            sequence.constraint = self.constraint.clone();
        }
        let vocabulary = rows.values.len() / (1 + drafts.len());
        let mut update = self.update(sequence.index);
        for (right, row) in rows.values.chunks_exact_mut(vocabulary.max(1)).enumerate() {
            let peak = rows.peaks.get(right).copied().flatten();
            let position = (sequence.ids.len() - self.prompt) as u64;
            let place = Place { ids: &sequence.ids, sequence: sequence.index, position };
            let sampled = self.sampler.sample(&self.processors, sequence.constraint.as_mut(), place, row, peak)?;
            let token = sampled.token;
            sequence.ids.push(token);
            update.tokens.push(sampled);
            self.tell(sequence, token, &mut update).map_err(SampleError::Contract)?;
            if update.finish.is_some() || drafts.get(right) != Some(&token) {
                return Ok((update, right));
            }
        }
        Ok((update, drafts.len()))
    }

    /// Adds the text of a token, and whether it ends the answer.
    fn tell(&self, sequence: &mut Sequence, token: u32, update: &mut Update) -> Result<(), String> {
        if self.parameters.eos_token_id.contains(&token) {
            update.finish = Some(Finish::EndOfText(token));
        } else if let Some(text) = &mut sequence.text {
            let piece = text.push(token)?;
            update.text.push_str(&piece.text);
            update.finish = piece.stop.map(Finish::Stop);
        }
        if update.finish.is_none() && sequence.ids.len() >= self.longest {
            update.finish = Some(Finish::Length);
        }
        let open = matches!(update.finish, Some(Finish::EndOfText(_) | Finish::Length));
        if let Some(text) = sequence.text.as_mut().filter(|_| open) {
            let piece = text.finish()?;
            update.text.push_str(&piece.text);
            update.finish = piece.stop.map(Finish::Stop).or(update.finish.take());
        }
        Ok(())
    }

    fn update(&self, sequence: u32) -> Update {
        Update { request: self.id, sequence, tokens: Vec::new(), text: String::new(), finish: None, score: None }
    }

    /// Goes on with all beams, and tells what was found when the search ends.
    fn advance_beams(
        &mut self,
        rows: &mut [f32],
        pool: &mut PagePool,
        updates: &mut Vec<Update>,
    ) -> Result<(), SampleError> {
        let mut failed = None;
        let mut mode = std::mem::replace(&mut self.mode, Mode::Sampled { begun: false });
        let Mode::Beams(search) = &mut mode else { return Ok(()) };
        let branches = search.advance(&self.processors, rows, &mut |ids| {
            self.ends_with_stop(ids).unwrap_or_else(|reason| {
                failed = Some(reason);
                true
            })
        });
        let outcome = match (branches, failed) {
            (_, Some(reason)) => Err(SampleError::Contract(reason)),
            (Err(error), None) => Err(error),
            (Ok(_), None) if search.is_done() => self.tell_beams(search, updates).map_err(SampleError::Contract),
            (Ok(branches), None) => {
                let ids: Vec<Vec<u32>> = search.open().map(<[u32]>::to_vec).collect();
                let branches = branches.iter().zip(ids).map(|(branch, ids)| (branch.parent, 0, ids)).collect();
                self.branch(branches, pool);
                Ok(())
            }
        };
        if search.is_done() && outcome.is_ok() {
            let keep = matches!(self.scope, crate::Scope::Shared(_));
            self.sequences.iter_mut().for_each(|sequence| sequence.release(keep, pool));
            self.sequences.clear();
        }
        self.mode = mode;
        outcome
    }

    /// Whether the last token completes a stop string.
    fn ends_with_stop(&self, ids: &[u32]) -> Result<bool, String> {
        let stops = &self.parameters.stop_strings;
        let Some(decoder) = self.decoder.as_ref().filter(|_| !stops.is_empty()) else { return Ok(false) };
        // Each token but special ones has at least a byte.
        let longest = stops.iter().map(String::len).max().unwrap_or(0) + 8;
        let from = self.prompt.max(ids.len().saturating_sub(longest));
        let tail = ids.get(from..).unwrap_or_default();
        let text = decoder.decode(tail)?;
        let before = decoder.decode(tail.split_last().map_or(&[], |(_, before)| before))?;
        let complete = |stop: &String| text.rfind(stop.as_str()).is_some_and(|start| start + stop.len() > before.len());
        Ok(stops.iter().any(complete))
    }

    /// Ends an answer that the search saw end with a stop string, where the stream of its text didn't: around bytes that are
    /// no text both may see different characters.
    fn end_at_stop(&self, sequence: &mut Sequence, answer: &[u32], update: &mut Update) -> Result<(), String> {
        if let (Some(text), Some(decoder)) = (&mut sequence.text, &self.decoder) {
            update.text.push_str(&text.finish()?.text);
            let whole = decoder.decode(answer)?;
            let stops = &self.parameters.stop_strings;
            let found = stops.iter().find(|stop| whole.contains(stop.as_str())).or(stops.first());
            update.finish = found.cloned().map(Finish::Stop);
        }
        Ok(())
    }

    /// Tells the answers that a search has found.
    fn tell_beams(&self, search: &BeamSearch, updates: &mut Vec<Update>) -> Result<(), String> {
        if search.found().is_empty() {
            return Err("no beam came to an end".to_owned());
        }
        for (index, found) in search.found().iter().enumerate() {
            let mut update = self.update(index as u32);
            update.score = Some(found.score);
            let (prompt, answer) = found.ids.split_at_checked(self.prompt).unwrap_or_default();
            let mut sequence = Sequence::new(index as u32, prompt.to_vec());
            sequence.text = self.text_stream(prompt);
            for &token in answer {
                sequence.ids.push(token);
                update.tokens.push(Sampled { token, ..Sampled::default() });
                if update.finish.is_none() {
                    self.tell(&mut sequence, token, &mut update)?;
                }
            }
            if update.finish.is_none() {
                self.end_at_stop(&mut sequence, answer, &mut update)?;
            }
            updates.push(update);
        }
        Ok(())
    }
}
