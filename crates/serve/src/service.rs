//! What every transport does with a request: find the model, read the body, tokenise, queue,
//! run, write the reply. Transports only translate: each brings a [`Dialect`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use centuple_tasks::{Category, EngineError, Job, Model, Reply, Request, TaskError, Usage};

use crate::{
    config::Config,
    metrics::{Metrics, ModelMetrics},
    queue::{Computed, Full, Queue},
};

/// Bodies from this size on are read and tokenised beside the I/O thread.
const LARGE_BODY: usize = 8 << 10;
/// Replies of this many numbers on are written beside the I/O thread.
const LARGE_REPLY: usize = 8 << 10;

/// How one family of routes reads bodies and writes replies.
pub(crate) trait Dialect: Send + 'static {
    /// Reads a body and finds the model that it is for.
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Request), Failure>;

    /// Writes a reply as JSON.
    fn write(&self, model: &Model, reply: Reply, usage: Usage) -> Vec<u8>;
}

/// A model and its queue.
pub(crate) struct Served {
    pub(crate) model: Arc<Model>,
    pub(crate) queue: Queue,
    pub(crate) metrics: ModelMetrics,
    pub(crate) report: Option<Arc<Report>>,
}

/// What optimising a model was found to cost in accuracy, as `GET /report` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A page for people: UTF-8, complete in itself. It may have inline styles; browsers are told
    /// to load nothing else for it, and no script.
    pub html: Vec<u8>,
    /// The same for programs.
    pub json: Vec<u8>,
}

/// The models that are served; never none.
pub(crate) struct Models(pub(crate) Vec<Arc<Served>>);

impl Models {
    /// The model of that id.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Served>, Failure> {
        let found = self.0.iter().find(|served| served.model.card.id == id);
        found.map(Arc::clone).ok_or_else(|| {
            let ids: Vec<_> = self.0.iter().map(|served| served.model.card.id.as_str()).collect();
            let message = format!("model `{id}` is not served here; served: {}", ids.join(", "));
            Failure::new(Kind::UnknownModel, message)
        })
    }

    /// The model of that id, else the first.
    pub(crate) fn find_or_first(&self, id: Option<&str>) -> Result<Arc<Served>, Failure> {
        let first = self.0.first().map(|served| served.model.card.id.as_str());
        self.find(id.or(first).unwrap_or_default())
    }

    /// The only model whatever the name, else the one of that id.
    pub(crate) fn find_or_only(&self, id: Option<&str>) -> Result<Arc<Served>, Failure> {
        match (self.0.as_slice(), id) {
            ([only], _) => Ok(Arc::clone(only)),
            (_, Some(id)) => self.find(id),
            (_, None) => Err(Failure::new(
                Kind::UnknownModel,
                "several models are served; name one: POST /models/ID, or `model` in the body".into(),
            )),
        }
    }
}

impl Served {
    /// The model's report.
    pub(crate) fn report(&self) -> Result<&Report, Failure> {
        self.report.as_deref().ok_or_else(|| {
            let message = format!(
                "model `{}` has no report; serve the folder that `centuple optimize MODEL -o DIR` writes, it has one",
                self.model.card.id
            );
            Failure::new(Kind::NoReport, message)
        })
    }
}

/// A written reply, and what it took.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) usage: Usage,
    pub(crate) timing: Timing,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// Reading the body's JSON and tokenising.
    pub(crate) tokenization: Duration,
    /// Waiting for the engine.
    pub(crate) queue: Duration,
    /// From the start of the first batch to the end of the last.
    pub(crate) inference: Duration,
    /// Everything, from the header of the request on.
    pub(crate) total: Duration,
}

/// Everything that a server holds while it runs.
pub(crate) struct Service {
    pub(crate) models: Models,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
}

impl Service {
    /// Answers a request whose header was received at `received`. Dropping the future cancels
    /// what the engine has not started of it.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        mut dialect: impl Dialect,
        body: Bytes,
        received: Instant,
    ) -> Result<Answer, Failure> {
        let (service, started) = (Arc::clone(self), Instant::now());
        let (served, job, dialect) = offload(body.len() >= LARGE_BODY, move || {
            let (served, request) = dialect.read(&service.models, &body)?;
            let job = service.prepare(&served.model, request)?;
            Ok((served, job, dialect))
        })
        .await?;
        let Job { sequences, usage, finish } = job;
        let tokenization = started.elapsed();
        let Computed { outputs, queue, inference } = match served.queue.submit(sequences)?.await {
            Ok(computed) => computed.map_err(TaskError::Engine)?,
            Err(_) => return Err(TaskError::Engine(EngineError::Stopped).into()),
        };
        let model = Arc::clone(&served.model);
        let values = outputs.iter().map(|output| output.data.len()).sum::<usize>();
        let body = offload(values >= LARGE_REPLY, move || {
            let reply = finish.reply(&model, outputs)?;
            Ok(dialect.write(&model, reply, usage))
        })
        .await?;
        let timing = Timing { tokenization, queue, inference, total: received.elapsed() };
        let answer = Answer { body, usage, timing };
        served.metrics.answered(&answer);
        Ok(answer)
    }

    fn prepare(&self, model: &Model, request: Request) -> Result<Job, Failure> {
        let (inputs, maximum) = (request.inputs(), self.config.max_inputs);
        if inputs > maximum {
            let message = format!("{inputs} inputs in one request, at most {maximum} are taken; send several requests");
            return Err(Failure::new(Kind::TooLarge, message));
        }
        let job = Job::prepare(model, request)?;
        let (values, maximum) = (job.output_values(model), self.config.max_reply_values);
        if values > maximum {
            let message =
                format!("the reply would have {values} numbers, at most {maximum} are sent; ask for less at once");
            return Err(Failure::new(Kind::TooLarge, message));
        }
        Ok(job)
    }
}

/// Runs `work` here if it is small, and else on a thread where it holds nobody up.
async fn offload<T: Send + 'static>(
    large: bool,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !large {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the server failed on this request".into())))
}

/// Why a request has no answer, in no transport's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What is wrong, where, and what would help.
    pub(crate) message: String,
    /// The field of the body that is at fault, where it is known.
    pub(crate) field: Option<String>,
}

/// Kinds of failures; each family of routes maps them to its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is not JSON.
    Malformed,
    /// The body asks for what can't be.
    Invalid,
    /// Nothing to compute.
    Empty,
    /// A text can't become tokens.
    Tokenization,
    /// The body, its number of inputs or the reply is over a limit.
    TooLarge,
    /// The body did not come in time.
    Timeout,
    /// No or a wrong key.
    Unauthorized,
    /// No such model.
    UnknownModel,
    /// The model was served without a report.
    NoReport,
    /// No such path.
    UnknownRoute,
    /// The path does not take this method.
    Method,
    /// The queue is full; try again after that time.
    Overloaded(Duration),
    /// The engine failed.
    Engine,
    /// The server failed.
    Internal,
}

impl Kind {
    /// A word for metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Invalid => "validation",
            Kind::Empty => "empty",
            Kind::Tokenization => "tokenization",
            Kind::TooLarge => "too_large",
            Kind::Timeout => "timeout",
            Kind::Unauthorized => "unauthorized",
            Kind::UnknownModel => "unknown_model",
            Kind::NoReport => "no_report",
            Kind::UnknownRoute => "unknown_route",
            Kind::Method => "method",
            Kind::Overloaded(_) => "overloaded",
            Kind::Engine => "engine",
            Kind::Internal => "internal",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self { kind, message, field: None }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let kind = match error.category() {
            Category::Malformed => Kind::Malformed,
            Category::Invalid => Kind::Invalid,
            Category::Empty => Kind::Empty,
            Category::Tokenization => Kind::Tokenization,
            Category::Engine => Kind::Engine,
        };
        Self { kind, field: error.field().map(str::to_owned), message: error.to_string() }
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        let seconds = full.retry_after.as_secs();
        let message = format!("too many requests wait for this model; try again in {seconds} s");
        Self::new(Kind::Overloaded(full.retry_after), message)
    }
}
