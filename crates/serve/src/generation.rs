//! Generation as every transport needs it: find the model, read the body, tokenise, run beside the others, collect.
//!
//! Dropping what is running ends it, and its pages are free at once: whoever holds it drops it when the client leaves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::body::Bytes;
use centuple_tasks::{
    EngineError, Model, TaskError, Usage,
    generation::{StepEngine, Ticket, Update},
    text_generation::{Answer, Answers, Defaults, Finish, Prepared, Request, TextGenerator},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    call::Call,
    failure::{Failure, Kind},
    models::{Models, Served},
    service::{Service, offload},
};

/// What makes a model generate; see [`ServedModel`](crate::ServedModel).
pub struct Generation {
    /// How it generates where a request doesn't say.
    pub defaults: Defaults,
    /// Its engine, which moves to a thread of its own.
    pub engine: Box<dyn StepEngine>,
    /// Its tokenizer.json, which grammars need.
    pub tokenizer: PathBuf,
}

/// How one family of routes reads bodies of generation.
pub(crate) trait Asks: Send + 'static {
    /// The model that a body names, if it does.
    fn model(&self, body: &[u8]) -> Option<String>;

    /// What it asks of a model.
    fn read(&mut self, generator: &TextGenerator, body: &[u8]) -> Result<Request, Failure>;

    /// Whether the text begins with the prompt where the request doesn't say.
    fn full_text(&self) -> bool {
        false
    }
}

/// A request that runs.
pub(crate) struct Run {
    pub(crate) served: Arc<Served>,
    pub(crate) usage: Usage,
    /// Whether its client wants it token by token.
    pub(crate) stream: bool,
    pub(crate) call: Call,
    pub(crate) finish: Finish,
    answers: Vec<Answers>,
    /// What came, and to which text.
    updates: UnboundedReceiver<(usize, Update)>,
    _tickets: Vec<Ticket>,
}

/// What came for one answer.
pub(crate) struct News<'a> {
    /// To which text.
    pub(crate) input: usize,
    /// Which answer to it.
    pub(crate) sequence: usize,
    /// The answer, as far as it has come.
    pub(crate) answer: &'a Answer,
    /// Tokens that it had before.
    pub(crate) tokens: usize,
    /// Bytes of text that it had before.
    pub(crate) text: usize,
}

impl News<'_> {
    /// The text that came.
    pub(crate) fn fresh(&self) -> &str {
        self.answer.text.get(self.text..).unwrap_or_default()
    }
}

impl Served {
    /// What generates, where the model does.
    pub(crate) fn generator(&self) -> Result<&TextGenerator, Failure> {
        self.generator.as_ref().ok_or_else(|| {
            let card = &self.model.card;
            let message = format!("model `{}` does not generate text; it does {}", card.id, card.offers());
            Failure::new(Kind::Invalid, message)
        })
    }
}

impl Models {
    /// The only model whatever the name, else the one of that id; without an id the only one that is loaded and generates.
    fn find_generating(&self, id: Option<&str>) -> Result<Arc<Served>, Failure> {
        if id.is_none() {
            let all = self.all();
            let mut generating = all.iter().filter(|served| served.generator.is_some());
            if let (Some(only), None) = (generating.next(), generating.next()) {
                return Ok(Arc::clone(only));
            }
        }
        self.find_or_only(id)
    }
}

/// The model that a request is for.
pub(crate) enum Wanted {
    /// What the path names, if it does.
    Named(Option<String>),
    /// What was looked up already: it answers, whatever has become of it since.
    Found(Arc<Served>),
}

impl Service {
    /// Starts what a body asks for.
    pub(crate) async fn generate<A: Asks>(
        self: &Arc<Self>,
        mut asks: A,
        wanted: Wanted,
        body: Bytes,
        call: Call,
    ) -> Result<(A, Run), Failure> {
        let call = call.within(self.config.timeout);
        let served = match wanted {
            Wanted::Found(served) => served,
            Wanted::Named(model) => {
                let model = model.or_else(|| asks.model(&body));
                self.find(&call, |models| models.find_generating(model.as_deref())).await?
            }
        };
        let service = Arc::clone(self);
        // Tokens are chosen under the generator's lock, which the I/O thread must not wait for.
        call.wait(offload(true, move || {
            let generator = served.generator()?;
            service.admit_generation(generator)?;
            let request = asks.read(generator, &body)?;
            service.check_inputs(request.inputs.items.len())?;
            let stream = request.stream;
            let client = u64::try_from(call.client.0).ok();
            let Prepared { requests, usage, finish } = generator.prepare(request, asks.full_text(), client)?;
            let (sender, updates) = unbounded_channel();
            let mut tickets = Vec::with_capacity(requests.len());
            for (input, request) in requests.into_iter().enumerate() {
                let sender = sender.clone();
                let sink = move |update| sender.send((input, update)).is_ok();
                tickets.push(generator.generator.submit(request, sink).map_err(TaskError::from)?);
            }
            let answers = finish.answers();
            let served = Arc::clone(&served);
            Ok((asks, Run { served, usage, stream, call, finish, answers, updates, _tickets: tickets }))
        }))
        .await
    }

    /// Refuses what would wait behind too many others.
    fn admit_generation(&self, generator: &TextGenerator) -> Result<(), Failure> {
        let statistics = generator.generator.statistics();
        if statistics.waiting + statistics.running < self.config.max_queued_requests {
            return Ok(());
        }
        let message = "too many requests wait for this model; try again in 1 s".into();
        Err(Failure::new(Kind::Overloaded(Duration::from_secs(1)), message))
    }
}

impl Run {
    /// The model.
    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.served.model
    }

    /// Waits for what comes next; `None` once all answers have ended.
    pub(crate) async fn next(&mut self) -> Result<Option<News<'_>>, Failure> {
        let Self { served, call, answers, updates, .. } = self;
        if answers.iter().all(Answers::are_done) {
            return Ok(None);
        }
        let stopped = || Failure::from(TaskError::Engine(EngineError::Stopped));
        let (input, update) = call.wait(async { updates.recv().await.ok_or_else(stopped) }).await?;
        let sequence = update.sequence as usize;
        let answers = answers.get_mut(input).ok_or_else(stopped)?;
        let before = answers.answers().get(sequence).map(|answer| (answer.tokens.len(), answer.text.len()));
        answers.take(&served.model, update)?;
        let (tokens, text) = before.unwrap_or_default();
        let answer = answers.answers().get(sequence).ok_or_else(stopped)?;
        Ok(Some(News { input, sequence, answer, tokens, text }))
    }

    /// Checks that there is one text and one answer.
    pub(crate) fn check_single(&self) -> Result<(), Failure> {
        if self.answers.iter().map(|answers| answers.answers().len()).sum::<usize>() == 1 {
            return Ok(());
        }
        let message = "a stream is for one text and one answer; send several requests".into();
        Err(Failure::new(Kind::Invalid, message))
    }

    /// Waits for the end of all answers.
    pub(crate) async fn all(mut self) -> Result<(Finish, Vec<Answers>), Failure> {
        while self.next().await?.is_some() {}
        Ok((self.finish, self.answers))
    }

    /// Number of tokens of all answers so far.
    pub(crate) fn generated(&self) -> usize {
        generated(&self.answers)
    }
}

/// Number of tokens of answers.
pub(crate) fn generated(answers: &[Answers]) -> usize {
    answers.iter().flat_map(Answers::answers).map(|answer| answer.tokens.len()).sum()
}
