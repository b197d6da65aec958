//! A persistent pool of threads that run one closure together, with barriers inside.
//!
//! The calling thread is worker 0. Between runs workers spin for a moment (waking takes well below a
//! microsecond), then sleep. Where a spinning thread would take the CPU from a working one (more threads
//! than CPUs, a fractional quota), nobody spins.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cpus::CpuBudget;
use crate::error::KernelError;

/// How long a worker spins for new work before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Pauses between two looks at the clock.
const PAUSES: u32 = 64;

/// Pauses of a thread that waits for another before it starts to yield the CPU.
const SPIN_PAUSES: u32 = 4096;

/// Part `index` of `0..total` cut into `parts` parts of nearly equal length; empty past the last part.
#[must_use]
pub fn share(total: usize, parts: usize, index: usize) -> Range<usize> {
    let parts = parts.max(1);
    let (length, longer) = (total / parts, total % parts);
    let start = |index: usize| {
        if index >= parts { total } else { index * length + index.min(longer) }
    };
    start(index)..start(index.saturating_add(1))
}

/// A thread's part in a run.
pub struct Worker<'a> {
    index: usize,
    shared: &'a Shared,
}

impl Worker<'_> {
    /// Number of this worker, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of workers in the run.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// This worker's part of `0..total`; see [`share`].
    #[must_use]
    pub fn share(&self, total: usize) -> Range<usize> {
        share(total, self.threads(), self.index)
    }

    /// Waits until every worker of the run is here. What they wrote before is visible after it.
    ///
    /// All workers must call it equally often. If one panics instead, the others unwind from here.
    pub fn barrier(&self) {
        self.shared.barrier();
    }

    /// Waits for a condition that workers of the run fulfil with what they have begun, so that one which has begun nothing
    /// holds up nobody. If a worker panics meanwhile, this one unwinds from here.
    pub fn wait_until(&self, done: impl Fn() -> bool) {
        self.shared.wait_or_unwind(done);
    }
}

type Job<'a> = dyn Fn(&Worker<'_>) + Sync + 'a;

/// What the caller and the workers share.
struct Shared {
    threads: usize,
    spin: bool,
    /// The closure of the current run; written by the caller while no worker runs.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Number of the current run; its change starts the workers.
    run: AtomicU32,
    /// Number of workers that have entered the current run, the caller apart; [`CLOSED`] while none may enter.
    gate: AtomicUsize,
    /// Number of workers that have left it again.
    left: AtomicUsize,
    stop: AtomicBool,
    /// Workers that sleep, or are about to, until `run` changes.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// Workers at the barrier, and how often it has opened.
    arrived: AtomicUsize,
    opened: AtomicU32,
    /// Set if a worker panicked: barriers unwind, and the caller takes the message.
    panicked: AtomicBool,
    message: Mutex<Option<String>>,
}

// SAFETY: `job` is written only by the thread that holds the pool's lock while the gate is closed and everybody has left,
// and read only by workers that have entered; the closure itself is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed during the run, in which the closure is borrowed.
unsafe impl Send for Shared {}

/// Set in the gate of a run that nobody may enter any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Unwinds a worker whose companion panicked, without printing.
struct CompanionPanicked;

thread_local! {
    /// Whether this thread is a worker in a run.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn barrier(&self) {
        let opened = self.opened.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.opened.store(opened.wrapping_add(1), Ordering::Release);
            return;
        }
        self.wait_or_unwind(|| self.opened.load(Ordering::Acquire) != opened);
    }

    fn wait_or_unwind(&self, done: impl Fn() -> bool) {
        self.wait(|| done() || self.panicked.load(Ordering::Acquire));
        if !done() {
            panic::resume_unwind(Box::new(CompanionPanicked));
        }
    }

    /// Enters the current run, unless it is over.
    fn enter(&self) -> bool {
        let one_more = |gate: usize| (gate & CLOSED == 0).then_some(gate + 1);
        self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Waits for a condition that another running thread will fulfil soon.
    fn wait(&self, done: impl Fn() -> bool) {
        let mut pauses = if self.spin { 0 } else { SPIN_PAUSES };
        while !done() {
            if pauses < SPIN_PAUSES {
                pauses += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Runs the job as one worker and keeps the message of a panic.
    fn work(&self, index: usize, job: &Job<'_>) {
        let nested = WORKING.replace(true);
        let worker = Worker { index, shared: self };
        let result = panic::catch_unwind(AssertUnwindSafe(|| job(&worker)));
        WORKING.set(nested);
        if let Err(payload) = result {
            if !payload.is::<CompanionPanicked>() {
                lock(&self.message).get_or_insert_with(|| message(&*payload));
            }
            self.panicked.store(true, Ordering::Release);
        }
    }

    /// Life of a worker thread: wait for a run, take part, again.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_run(seen);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if !self.enter() {
                continue;
            }
            // Nobody starts another run while this worker is in one; it may be later than the one that was noticed.
            seen = self.run.load(Ordering::SeqCst);
            // SAFETY: the gate was open, so the caller has written `job` before, and does not write it or let the closure
            // go until this worker has left.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above.
                self.work(index, unsafe { &*job });
            }
            self.left.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits until the number of the run is not `seen`: spinning first, then asleep.
    fn next_run(&self, seen: u32) -> u32 {
        let current = || self.run.load(Ordering::SeqCst);
        if self.spin {
            let start = Instant::now();
            while start.elapsed() < SPIN {
                for _ in 0..PAUSES {
                    if current() != seen {
                        return current();
                    }
                    std::hint::spin_loop();
                }
            }
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while current() == seen {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        current()
    }

    /// Starts the workers on what was prepared.
    fn start_run(&self) {
        self.run.fetch_add(1, Ordering::SeqCst);
        // A worker counts itself before its last look at `run`; so it is either seen here or sees the
        // new number.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.sleep);
            self.wake.notify_all();
        }
    }
}

/// The text of a panic.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// A persistent pool of threads.
pub struct ThreadPool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    one_run: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `threads` workers (at least one), of which the caller of [`ThreadPool::run`] is the
    /// first. Errors if the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            threads,
            spin: CpuBudget::detect().may_spin(threads),
            job: UnsafeCell::new(None),
            run: AtomicU32::new(0),
            gate: AtomicUsize::new(CLOSED),
            left: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            arrived: AtomicUsize::new(0),
            opened: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            message: Mutex::new(None),
        });
        let mut pool = Self { shared, handles: Vec::new(), one_run: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let handle = std::thread::Builder::new()
                .name(format!("centuple-{index}"))
                .spawn(move || shared.serve(index))
                .map_err(|source| KernelError::Spawn { index, source })?;
            pool.handles.push(handle);
        }
        Ok(pool)
    }

    /// Number of workers, the calling thread included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `job` once on every worker at the same time and returns when all are done. Callers on
    /// several threads take turns.
    ///
    /// Errors if a worker panicked (the pool stays usable), or if called from inside a run; only a pool of one
    /// thread, which waits for nobody, can be run there.
    pub fn run(&self, job: &(dyn Fn(&Worker<'_>) + Sync)) -> Result<(), KernelError> {
        self.start(job, true)
    }

    /// As [`ThreadPool::run`], but returns as soon as the calling thread's part is done and every worker that has begun
    /// has ended: one whose CPU is taken by somebody else is left out. For jobs whose workers claim their work and wait
    /// with [`Worker::wait_until`] only; [`Worker::barrier`] would wait for ever.
    pub fn run_available(&self, job: &(dyn Fn(&Worker<'_>) + Sync)) -> Result<(), KernelError> {
        self.start(job, false)
    }

    fn start(&self, job: &(dyn Fn(&Worker<'_>) + Sync), everyone: bool) -> Result<(), KernelError> {
        if WORKING.get() && self.threads() > 1 {
            return Err(KernelError::NestedRun);
        }
        let _one_run = lock(&self.one_run);
        let shared = &*self.shared;
        shared.arrived.store(0, Ordering::Relaxed);
        shared.panicked.store(false, Ordering::Relaxed);
        shared.left.store(0, Ordering::Relaxed);
        // SAFETY: no worker runs now, so nobody reads `job`. Extending the closure's lifetime is sound
        // because this function returns only after all workers are done with it.
        unsafe {
            *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job));
        }
        if shared.threads > 1 {
            shared.gate.store(0, Ordering::Release);
            shared.start_run();
        }
        shared.work(0, job);
        if shared.threads > 1 {
            if everyone {
                shared.wait(|| shared.gate.load(Ordering::Acquire) == shared.threads - 1);
            }
            let entered = shared.gate.fetch_or(CLOSED, Ordering::AcqRel);
            shared.wait(|| shared.left.load(Ordering::Acquire) == entered);
        }
        match lock(&shared.message).take() {
            Some(message) => Err(KernelError::WorkerPanicked(message)),
            None => Ok(()),
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.start_run();
        for handle in self.handles.drain(..) {
            // A worker catches every panic of a job, so there is none to report.
            let _ = handle.join();
        }
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for total in 0..40 {
            for parts in 1..9 {
                let all: Vec<usize> = (0..parts).flat_map(|i| share(total, parts, i)).collect();
                assert_eq!(all, (0..total).collect::<Vec<_>>());
            }
        }
        assert!(share(5, 2, 7).is_empty());
        assert!(share(5, 2, usize::MAX).is_empty());
    }

    #[test]
    fn claimed_work_is_done_whoever_comes() {
        for threads in 1..=5 {
            let pool = ThreadPool::new(threads).unwrap();
            for _ in 0..500 {
                let claims: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
                let done: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
                pool.run_available(&|worker| {
                    for (stage, claim) in claims.iter().enumerate() {
                        while claim.fetch_add(1, Ordering::Relaxed) < 3 {
                            let before = stage.checked_sub(1).map_or(3, |stage| done[stage].load(Ordering::Acquire));
                            assert_eq!(before, 3);
                            done[stage].fetch_add(1, Ordering::Release);
                        }
                        worker.wait_until(|| done[stage].load(Ordering::Acquire) == 3);
                    }
                })
                .unwrap();
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 3));
            }
            let panics = pool.run_available(&|worker| {
                assert!(worker.index() != 0, "on purpose");
                worker.wait_until(|| false);
            });
            assert!(matches!(panics, Err(KernelError::WorkerPanicked(message)) if message.contains("on purpose")));
            pool.run(&|worker| worker.barrier()).unwrap();
        }
    }

    #[test]
    fn every_worker_runs_every_time() {
        for threads in 1..=5 {
            let pool = ThreadPool::new(threads).unwrap();
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..200 {
                pool.run(&|worker| {
                    counts[worker.index()].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
        }
    }

    #[test]
    fn barriers_separate_phases() {
        let pool = ThreadPool::new(3).unwrap();
        let slots: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..20 {
            pool.run(&|worker| {
                for phase in 0..50 {
                    slots[worker.index()].store(phase, Ordering::Relaxed);
                    worker.barrier();
                    assert!(slots.iter().all(|slot| slot.load(Ordering::Relaxed) == phase));
                    worker.barrier();
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_survives() {
        let pool = ThreadPool::new(3).unwrap();
        for guilty in 0..3 {
            let error = pool
                .run(&|worker| {
                    worker.barrier();
                    assert!(worker.index() != guilty, "worker {guilty} failed");
                    worker.barrier();
                })
                .unwrap_err();
            assert!(error.to_string().contains(&format!("worker {guilty} failed")), "{error}");
            pool.run(&|worker| worker.barrier()).unwrap();
        }
    }

    #[test]
    fn runs_from_many_threads_take_turns_and_nesting_is_refused() {
        let pool = ThreadPool::new(2).unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(&|worker| {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            assert!(matches!(pool.run(&|_| ()), Err(KernelError::NestedRun)));
                            worker.barrier();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            worker.barrier();
                        })
                        .unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn pools_of_one_thread_run_inside_a_run() {
        let (outer, done) = (ThreadPool::new(2).unwrap(), AtomicUsize::new(0));
        let alone = [ThreadPool::new(1).unwrap(), ThreadPool::new(1).unwrap()];
        outer
            .run(&|worker| {
                alone[worker.index()]
                    .run(&|_| {
                        done.fetch_add(1, Ordering::SeqCst);
                    })
                    .unwrap();
                // The worker is still one of the outer run.
                assert!(matches!(outer.run(&|_| ()), Err(KernelError::NestedRun)));
                let error = alone[worker.index()].run(&|_| panic!("inside")).unwrap_err().to_string();
                assert!(error.contains("inside"), "{error}");
            })
            .unwrap();
        assert_eq!(done.into_inner(), 2);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = ThreadPool::new(2).unwrap();
        for _ in 0..5 {
            std::thread::sleep(SPIN * 20);
            pool.run(&|worker| worker.barrier()).unwrap();
        }
    }
}
