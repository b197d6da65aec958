//! What every transport does with a request: find the model, read the body, tokenise, queue,
//! run, write the reply. Transports only translate: each brings a [`Dialect`].

use std::{
    num::NonZero,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use centuple_tasks::{EngineError, Finish, Head, Job, Model, Output, Reply, Request, Sequence, TaskError, Usage};
use tokio::sync::{Semaphore, watch};

use crate::{cache::Cache, call::Call, config::Config, metrics::Metrics, queue::Computed, trace::Tracing};
pub(crate) use crate::{
    failure::{Failure, Kind},
    models::{Models, Report, Served},
};

/// Bodies from this size on are read and tokenised beside the I/O thread.
pub(crate) const LARGE_BODY: usize = 8 << 10;
/// Replies of this many numbers on are written beside the I/O thread.
const LARGE_REPLY: usize = 8 << 10;

/// How one family of routes reads bodies and writes replies.
pub(crate) trait Dialect: Send + 'static {
    /// Reads a body and finds the model that it is for.
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure>;

    /// Whether outputs of earlier requests will do, where the body that was read says so.
    fn use_cache(&self) -> Option<bool> {
        None
    }

    /// How long the request may take, where the body that was read says so.
    fn timeout(&self) -> Option<Duration> {
        None
    }

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

/// A written reply, and what it took.
pub(crate) struct Answer {
    /// Which model has answered.
    pub(crate) model: Arc<Model>,
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
    /// What traces requests, if anything does.
    pub(crate) tracing: Option<Arc<Tracing>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the server was told to stop; what would go on for long ends then.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) cache: Cache,
}

impl Service {
    /// Answers a request. Dropping the future cancels what the engine has not started of it.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        dialect: impl Dialect,
        body: Bytes,
        call: Call,
    ) -> Result<Answer, Failure> {
        let call = call.within(self.config.timeout);
        let (read, dialect) = call.wait(self.read(dialect, body, call)).await?;
        let Read { served, prepared, started, call } = read;
        let outcome = match prepared {
            Ok(prepared) => self.run(&served, prepared, dialect, started, &call).await,
            Err(failure) => Err(failure),
        };
        served.metrics.ended(call.received, &outcome);
        outcome
    }

    /// Has a dialect read a body; again once its model is loaded, where it was not.
    async fn read<D: Dialect>(
        self: &Arc<Self>,
        mut dialect: D,
        body: Bytes,
        mut call: Call,
    ) -> Result<(Read, D), Failure> {
        let mut search = self.models.search();
        loop {
            let (service, models, body) = (Arc::clone(self), search.models(), body.clone());
            let (found, back) = offload(body.len() >= LARGE_BODY, move || {
                let started = Instant::now();
                let found = dialect.read(&models, &body).map(|(served, work)| {
                    call.use_cache = dialect.use_cache().or(call.use_cache);
                    call = call.within(dialect.timeout());
                    let prepared = service.admit(&served, &call).and_then(|()| service.prepare(&served.model, work));
                    Read { served, prepared, started, call }
                });
                Ok((found, dialect))
            })
            .await?;
            dialect = back;
            if let Some(read) = search.settle(found).await? {
                return Ok((read, dialect));
            }
        }
    }

    /// Does what needs a model, but not its engine; `large`: where it holds nobody up.
    pub(crate) async fn reply<T: Send + 'static>(
        self: &Arc<Self>,
        large: bool,
        work: impl Fn(&Self, &Models) -> Result<T, Failure> + Clone + Send + 'static,
    ) -> Result<T, Failure> {
        let mut search = self.models.search();
        loop {
            let (service, models, work) = (Arc::clone(self), search.models(), work.clone());
            let found = offload(large, move || Ok(work(&service, &models))).await?;
            if let Some(reply) = search.settle(found).await? {
                return Ok(reply);
            }
        }
    }

    /// Looks something up for which a model has to be loaded; where it is not yet, waits for that.
    pub(crate) async fn find<T>(
        &self,
        call: &Call,
        look: impl Fn(&Models) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut search = self.models.search();
        let finding = async {
            loop {
                if let Some(found) = search.settle(look(&search.models())).await? {
                    return Ok(found);
                }
            }
        };
        call.within(self.config.timeout).wait(finding).await
    }

    /// Refuses what the queue would refuse, before it is tokenised.
    fn admit(&self, served: &Served, call: &Call) -> Result<(), Failure> {
        match self.cache.is_for(call.use_cache) {
            true => Ok(()),
            false => Ok(served.queue.check(call.client)?),
        }
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

/// A body that was read.
struct Read {
    served: Arc<Served>,
    prepared: Result<Prepared, Failure>,
    started: Instant,
    call: Call,
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

impl Service {
    /// Has the model compute what was prepared since `started`.
    async fn run(
        &self,
        served: &Arc<Served>,
        prepared: Prepared,
        dialect: impl Dialect,
        started: Instant,
        call: &Call,
    ) -> Result<Answer, Failure> {
        let Prepared { sequences, usage, step } = prepared;
        let tokenization = started.elapsed();
        let Computed { outputs, queue, inference } = call.wait(self.outputs(served, sequences, call)).await?;
        let (model, writing) = (Arc::clone(&served.model), Instant::now());
        let writer = Arc::clone(&model);
        let values = outputs.iter().map(|output| output.data.len()).sum::<usize>();
        let written = offload(values >= LARGE_REPLY, move || {
            let done = step.finish(&writer, outputs)?;
            Ok(dialect.write(&writer, done, usage))
        })
        .await?;
        let (output, total) = (writing.elapsed(), call.received.elapsed());
        Ok(Answer { model, written, usage, timing: Timing { tokenization, queue, inference, output, total } })
    }

    /// The outputs of sequences, from the cache as far as it has them and the client wants it.
    async fn outputs(&self, served: &Served, sequences: Vec<Sequence>, call: &Call) -> Result<Computed, Failure> {
        if !self.cache.is_for(call.use_cache) {
            return compute(served, sequences, call).await;
        }
        let (missing, found) = self.cache.find(served.queue.instance(), call.client, sequences, &served.metrics.cache);
        let computed = compute(served, missing, call).await?;
        let outputs = self.cache.complete(found, computed.outputs).ok_or(TaskError::Engine(EngineError::Stopped))?;
        Ok(Computed { outputs, ..computed })
    }
}

/// Has the engine compute sequences; none are done at once.
async fn compute(served: &Served, sequences: Vec<Sequence>, call: &Call) -> Result<Computed, Failure> {
    if sequences.is_empty() {
        return Ok(Computed::default());
    }
    match served.queue.submit(call.client, sequences)?.await {
        Ok(computed) => Ok(computed.map_err(TaskError::Engine)?),
        Err(_) => Err(TaskError::Engine(EngineError::Stopped).into()),
    }
}

/// As much large work is done at once as there are CPUs. So a client that leaves before its turn
/// costs nothing, and memory and threads are bounded.
static LARGE_WORK: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)));

/// Runs `work` here if it is small, and else on a thread where it holds nobody up.
pub(crate) async fn offload<T: Send + 'static>(
    large: bool,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !large {
        return work();
    }
    // The semaphore is never closed.
    let _place = LARGE_WORK.acquire().await;
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the server failed on this request".into())))
}
