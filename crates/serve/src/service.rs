//! What every transport does with a request: find the model, read the body, tokenise, queue,
//! run, write the reply. Transports only translate: each brings a [`Dialect`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use centuple_tasks::{EngineError, Finish, Head, Job, Model, Output, Reply, Request, Sequence, Task, TaskError, Usage};

pub(crate) use crate::failure::{Failure, Kind};
use crate::{
    config::Config,
    metrics::{Metrics, ModelMetrics},
    queue::{Computed, Queue},
};

/// Bodies from this size on are read and tokenised beside the I/O thread.
pub(crate) const LARGE_BODY: usize = 8 << 10;
/// Replies of this many numbers on are written beside the I/O thread.
const LARGE_REPLY: usize = 8 << 10;

/// How one family of routes reads bodies and writes replies.
pub(crate) trait Dialect: Send + 'static {
    /// Reads a body and finds the model that it is for.
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure>;

    /// Writes what was asked for.
    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written;
}

/// What a body asks for.
pub(crate) enum Work {
    /// The reply of a task.
    Reply(Request),
    /// The model's output for the inputs of a task, as it is.
    Outputs(Request),
    /// The model's output for sequences, as it is.
    Sequences {
        /// What is computed.
        sequences: Vec<Sequence>,
        /// Rows that the output of each will be padded to; they count for the limit of a reply.
        length: usize,
    },
}

impl From<Request> for Work {
    fn from(request: Request) -> Self {
        Work::Reply(request)
    }
}

/// What became of [`Work`].
pub(crate) enum Done {
    /// Of [`Work::Reply`].
    Reply(Reply),
    /// One per sequence, of finite values and the shape that the model's head says.
    Outputs(Vec<Output>),
}

impl Done {
    /// The JSON of a task's reply.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        match self {
            Done::Reply(reply) => reply.to_json(),
            Done::Outputs(_) => Vec::new(),
        }
    }
}

/// The body of a response.
pub(crate) struct Written {
    pub(crate) body: Vec<u8>,
    /// Bytes of JSON at its beginning, where other bytes follow it.
    pub(crate) json: Option<usize>,
}

impl From<Vec<u8>> for Written {
    fn from(body: Vec<u8>) -> Self {
        Self { body, json: None }
    }
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

impl Models {
    /// The only model whatever the name, else the one of that id; without an id the only one that
    /// does the task and of which `fits` holds.
    pub(crate) fn find_for(
        &self,
        id: Option<&str>,
        task: Task,
        fits: impl Fn(&Model) -> bool,
    ) -> Result<Arc<Served>, Failure> {
        if id.is_some() || self.0.len() == 1 {
            return self.find_or_only(id);
        }
        let does = |served: &&Arc<Served>| served.model.card.tasks().contains(&task) && fits(&served.model);
        let mut found = self.0.iter().filter(does);
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            (Some(first), Some(second)) => {
                let message = format!(
                    "several models do {task}, as `{}` and `{}`; name one by `model` in the body",
                    first.model.card.id, second.model.card.id
                );
                Err(Failure::new(Kind::UnknownModel, message))
            }
            (None, _) => {
                Err(Failure::new(Kind::UnknownModel, format!("no model that is served here does {task} in this way")))
            }
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
    pub(crate) written: Written,
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
    /// Writing the reply.
    pub(crate) output: Duration,
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
        let (served, prepared, dialect) = offload(body.len() >= LARGE_BODY, move || {
            let (served, work) = dialect.read(&service.models, &body)?;
            let prepared = service.prepare(&served.model, work);
            Ok((served, prepared, dialect))
        })
        .await?;
        let outcome = match prepared {
            Ok(prepared) => run(&served, prepared, dialect, started, received).await,
            Err(failure) => Err(failure),
        };
        served.metrics.ended(received, &outcome);
        outcome
    }

    /// Checks work against the limits and turns it into sequences.
    fn prepare(&self, model: &Model, work: Work) -> Result<Prepared, Failure> {
        let inputs = match &work {
            Work::Reply(request) | Work::Outputs(request) => request.inputs(),
            Work::Sequences { sequences, .. } => sequences.len(),
        };
        self.check_inputs(inputs)?;
        match work {
            Work::Reply(request) => {
                let job = Job::prepare(model, request)?;
                self.check_values(job.output_values(model))?;
                let Job { sequences, usage, finish } = job;
                Ok(Prepared { sequences, usage, step: Step::Reply(finish) })
            }
            Work::Outputs(request) => {
                let Job { sequences, usage, .. } = Job::prepare(model, request)?;
                self.prepare_outputs(&model.card.head, sequences, usage, 0)
            }
            Work::Sequences { sequences, length } => {
                for (input, sequence) in sequences.iter().enumerate() {
                    model.limits.check(sequence).map_err(|source| TaskError::Ids { input, source })?;
                }
                let usage = Usage { characters: 0, tokens: sequences.iter().map(Sequence::len).sum() };
                self.prepare_outputs(&model.card.head, sequences, usage, length)
            }
        }
    }

    /// Sequences whose outputs are sent as they are, each padded to the rows of the longest or to `length`.
    fn prepare_outputs(
        &self,
        head: &Head,
        sequences: Vec<Sequence>,
        usage: Usage,
        length: usize,
    ) -> Result<Prepared, Failure> {
        let rows: Vec<usize> = sequences.iter().map(|sequence| head.rows(sequence)).collect();
        let longest = rows.iter().copied().max().unwrap_or(0).max(length);
        self.check_values(rows.len().saturating_mul(longest).saturating_mul(head.columns()))?;
        Ok(Prepared { sequences, usage, step: Step::Outputs(rows) })
    }

    /// Refuses more inputs than a request may have.
    pub(crate) fn check_inputs(&self, inputs: usize) -> Result<(), Failure> {
        let maximum = self.config.max_inputs;
        if inputs <= maximum {
            return Ok(());
        }
        let message = format!("{inputs} inputs in one request, at most {maximum} are taken; send several requests");
        Err(Failure::new(Kind::TooLarge, message))
    }

    /// Refuses a reply of more numbers than are sent.
    fn check_values(&self, values: usize) -> Result<(), Failure> {
        let maximum = self.config.max_reply_values;
        if values <= maximum {
            return Ok(());
        }
        let message =
            format!("the reply would have {values} numbers, at most {maximum} are sent; ask for less at once");
        Err(Failure::new(Kind::TooLarge, message))
    }
}

/// Work as sequences, and what is left to do afterwards.
struct Prepared {
    sequences: Vec<Sequence>,
    usage: Usage,
    step: Step,
}

enum Step {
    /// A task's reply is made of the outputs.
    Reply(Finish),
    /// The outputs are handed on; each must have so many rows.
    Outputs(Vec<usize>),
}

impl Step {
    fn finish(self, model: &Model, outputs: Vec<Output>) -> Result<Done, TaskError> {
        match self {
            Step::Reply(finish) => finish.reply(model, outputs).map(Done::Reply),
            Step::Outputs(rows) => {
                model.card.head.check(&rows, &outputs)?;
                Ok(Done::Outputs(outputs))
            }
        }
    }
}

/// Has the model compute what was prepared since `started`.
async fn run(
    served: &Arc<Served>,
    prepared: Prepared,
    dialect: impl Dialect,
    started: Instant,
    received: Instant,
) -> Result<Answer, Failure> {
    let Prepared { sequences, usage, step } = prepared;
    let tokenization = started.elapsed();
    let Computed { outputs, queue, inference } = match served.queue.submit(sequences)?.await {
        Ok(computed) => computed.map_err(TaskError::Engine)?,
        Err(_) => return Err(TaskError::Engine(EngineError::Stopped).into()),
    };
    let (model, writing) = (Arc::clone(&served.model), Instant::now());
    let values = outputs.iter().map(|output| output.data.len()).sum::<usize>();
    let written = offload(values >= LARGE_REPLY, move || {
        let done = step.finish(&model, outputs)?;
        Ok(dialect.write(&model, done, usage))
    })
    .await?;
    let (output, total) = (writing.elapsed(), received.elapsed());
    Ok(Answer { written, usage, timing: Timing { tokenization, queue, inference, output, total } })
}

/// Runs `work` here if it is small, and else on a thread where it holds nobody up.
pub(crate) async fn offload<T: Send + 'static>(
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
