//! A thread that runs step after step, for as many requests as there are at the time.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use centuple_guard::guarded;

use crate::{
    Logits, Refusal, Request, RequestId, Scheduler, Statistics, Step, StepEngine, StepError, StepLimits, Update,
};

/// Takes what a request got; says whether anybody still wants more.
type Sink = Box<dyn FnMut(Update) -> bool + Send>;

/// Continuous batching over an engine: requests join and leave at every step.
///
/// When it is dropped, the thread ends after its step, and requests that run get nothing more.
pub struct Generator {
    shared: Arc<Shared>,
    limits: StepLimits,
}

struct Shared {
    state: Mutex<State>,
    /// That a request came, or that the thread is to end.
    changed: Condvar,
}

struct State {
    scheduler: Scheduler,
    sinks: HashMap<RequestId, Sink>,
    stopping: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do, and plans it; `None` at the end.
    fn next(&self) -> Option<Step> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                state.sinks.clear();
                return None;
            }
            if let Some(step) = state.scheduler.plan() {
                return Some(step);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Tells each request what it got. One that nobody listens to any more is ended.
    fn tell(&mut self, updates: Vec<Update>) {
        for update in updates {
            let request = update.request;
            let listens = self.sinks.get_mut(&request).is_some_and(|sink| sink(update));
            if !listens {
                self.end(request);
            }
        }
        let State { scheduler, sinks, .. } = self;
        sinks.retain(|request, _| scheduler.contains(*request));
    }

    fn end(&mut self, request: RequestId) {
        self.scheduler.cancel(request);
        self.sinks.remove(&request);
    }
}

impl Generator {
    /// Starts a thread that runs the engine.
    ///
    /// # Errors
    /// The system grants no thread.
    pub fn start(mut engine: Box<dyn StepEngine>) -> std::io::Result<Generator> {
        let limits = engine.limits();
        let state = State { scheduler: Scheduler::new(limits), sinks: HashMap::new(), stopping: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let work = move || {
            let mut logits = Logits::default();
            while let Some(step) = of_thread.next() {
                let crashed = |reason: &str| StepError(format!("the model crashed: {reason}; please report this"));
                let outcome = guarded(|| engine.run(&step, &mut logits), crashed);
                let mut state = of_thread.lock();
                let updates = match outcome {
                    Ok(()) => state.scheduler.complete(&mut logits),
                    Err(error) => state.scheduler.fail(&error),
                };
                state.tell(updates);
            }
        };
        std::thread::Builder::new().name("generator".to_owned()).spawn(work)?;
        Ok(Generator { shared, limits })
    }

    /// Takes a request. `sink` gets what each step gives for it, on the generator's thread, and says whether anybody still
    /// wants more; it is dropped at the end.
    ///
    /// # Errors
    /// Parameters without a meaning, or a request that the model or the cache could never hold.
    pub fn submit(
        &self,
        request: Request,
        sink: impl FnMut(Update) -> bool + Send + 'static,
    ) -> Result<Ticket, Refusal> {
        let mut state = self.shared.lock();
        let id = state.scheduler.submit(request)?;
        state.sinks.insert(id, Box::new(sink));
        drop(state);
        self.shared.changed.notify_all();
        Ok(Ticket { shared: Arc::clone(&self.shared), id })
    }

    /// What the engine takes.
    pub fn limits(&self) -> StepLimits {
        self.limits
    }

    /// What runs now, and what was done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().scheduler.statistics()
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
    }
}

/// A request that was taken. When it is dropped, the request ends, and its pages are free at once.
pub struct Ticket {
    shared: Arc<Shared>,
    id: RequestId,
}

impl Ticket {
    /// The request's number.
    pub fn id(&self) -> RequestId {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().end(self.id);
    }
}
