//! text-generation over a generator: bodies in, replies out.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fs, io};

use centuple_generate::{Constraint, Generator, Grammars, ParameterError, StepEngine, StepLimits, Ticket, Update};

use super::{Answer, Answers, Context, Defaults, Finish, Grammar, Prepared, Reply, Request};
use crate::{engine::EngineError, error::TaskError, model::Model};

/// How long a listener to an answer is left without a word.
const TICK: Duration = Duration::from_millis(50);

/// A model that generates text, and the thread that does.
pub struct TextGenerator {
    /// What tasks need to know of the model.
    pub model: Arc<Model>,
    /// How it generates where a request doesn't say.
    pub defaults: Defaults,
    /// What runs the requests.
    pub generator: Generator,
    tokenizer: PathBuf,
    /// Made when the first answer is to be kept to a grammar.
    grammars: OnceLock<Result<Grammars, ParameterError>>,
}

impl TextGenerator {
    /// Starts the thread. `defaults` is how the model generates where a request doesn't say, `tokenizer` the path of its
    /// tokenizer.json, which only grammars need; where there is none, the tokenizer says what would be in it.
    ///
    /// # Errors
    /// The system grants none.
    pub fn start(
        model: Arc<Model>,
        defaults: Defaults,
        engine: Box<dyn StepEngine>,
        tokenizer: PathBuf,
    ) -> io::Result<TextGenerator> {
        Ok(TextGenerator {
            model,
            defaults,
            generator: Generator::start(engine)?,
            tokenizer,
            grammars: OnceLock::new(),
        })
    }

    /// Turns a request into tokens. Its text begins with the prompt if `full_text` says so and the request doesn't say; prompts are
    /// shared with other requests of the same `client`.
    ///
    /// # Errors
    /// A text can't become tokens, or a parameter has no meaning.
    pub fn prepare(&self, request: Request, full_text: bool, client: Option<u64>) -> Result<Prepared, TaskError> {
        request.prepare(&Context {
            model: &self.model,
            defaults: &self.defaults,
            seed: RandomState::new().build_hasher().finish(),
            full_text,
            client,
            constrain: &|grammar: &Grammar| self.constrain(grammar),
        })
    }

    /// Most tokens of a prompt and an answer where so many answers run at once.
    pub fn longest(&self, answers: usize) -> usize {
        let StepLimits { positions, pages, page_tokens, .. } = self.generator.limits();
        positions.min((pages / answers.max(1)).saturating_mul(page_tokens))
    }

    /// Starts a request beside those that run.
    ///
    /// # Errors
    /// The model or the cache could never hold one of its texts; then none is run.
    pub fn submit(&self, prepared: Prepared) -> Result<Running, TaskError> {
        let Prepared { requests, finish, .. } = prepared;
        let (sender, updates) = channel();
        let mut tickets = Vec::with_capacity(requests.len());
        for (input, request) in requests.into_iter().enumerate() {
            let sender = sender.clone();
            tickets.push(self.generator.submit(request, move |update| sender.send((input, update)).is_ok())?);
        }
        Ok(Running { model: Arc::clone(&self.model), tickets, updates, finish })
    }

    fn constrain(&self, grammar: &Grammar) -> Result<Constraint, ParameterError> {
        let grammars = self.grammars.get_or_init(|| self.read_grammars()).as_ref().map_err(Clone::clone)?;
        match grammar {
            Grammar::Json(schema) => grammars.json_schema(schema.clone()),
            Grammar::Regex(expression) => grammars.regex(expression),
        }
    }

    fn read_grammars(&self) -> Result<Grammars, ParameterError> {
        let path = &self.tokenizer;
        let unread = |error: &dyn std::error::Error| {
            ParameterError::Format(format!("a grammar needs `{}`, which can't be read: {error}", path.display()))
        };
        let tokenizer = if path.is_file() {
            let bytes = fs::read(path).map_err(|error| unread(&error))?;
            serde_json::from_slice(&bytes).map_err(|error| unread(&error))?
        } else {
            self.model.tokenizer.to_json().map_err(|error| unread(&error))?
        };
        let StepLimits { vocabulary, .. } = self.generator.limits();
        Grammars::from_tokenizer_json(&tokenizer, vocabulary, &self.defaults.parameters.eos_token_id)
    }
}

/// A request that runs. When it is dropped, it ends.
#[must_use]
pub struct Running {
    model: Arc<Model>,
    tickets: Vec<Ticket>,
    /// What came, and to which of the texts.
    updates: Receiver<(usize, Update)>,
    finish: Finish,
}

impl Running {
    /// Tells the text of the first answer as it comes, and the empty text now and then while nothing does, until the end or until
    /// `tell` says that it is enough. Yields the answer as far as it has come.
    ///
    /// # Errors
    /// The answer could not be computed.
    pub fn tell(self, mut tell: impl FnMut(&str) -> bool) -> Result<Answer, TaskError> {
        let Running { model, tickets, updates, finish } = self;
        let mut answers = finish.answers().into_iter().next().unwrap_or_default();
        let mut told = 0;
        while !answers.are_done() {
            match updates.recv_timeout(TICK) {
                Ok((_, update)) => drop(answers.take(&model, update)?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(EngineError::Stopped.into()),
            }
            let text = answers.answers().first().map_or("", |answer| answer.text.as_str());
            let fresh = text.get(told..).unwrap_or_default();
            told = text.len();
            if !tell(fresh) {
                break;
            }
        }
        drop(tickets);
        Ok(answers.answers().first().cloned().unwrap_or_default())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// An answer could not be computed.
    pub fn wait(self) -> Result<Reply, TaskError> {
        let Running { model, tickets, updates, finish } = self;
        let mut answers = finish.answers();
        for (input, update) in updates {
            let of_text = answers.get_mut(input).ok_or(EngineError::Stopped)?;
            of_text.take(&model, update)?;
            if answers.iter().all(Answers::are_done) {
                break;
            }
        }
        drop(tickets);
        finish.reply(answers)
    }
}
