//! Pieces of work that workers claim one by one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use centuple_kernels::{self as kernels, Worker};

/// How far the workers are with pieces of work that they claim one by one.
pub(crate) struct Progress {
    /// Where pieces are few, each has a state of its own, which only its worker writes if all are there in time: what several
    /// write has to travel from core to core, and that takes as long as the work of a small stage.
    few: Box<[Piece]>,
    /// Otherwise a bit for each piece, or where they are more than bits, their number.
    claimed: AtomicUsize,
    done: AtomicUsize,
}

/// Pieces with states of their own, for each worker.
const OWN_PIECES: usize = 2;

/// Twice the number of the last run in which somebody claimed the piece, and one more once it was done. In cache lines of its
/// own, and those that the CPU fetches with them.
#[derive(Default)]
#[repr(align(128))]
struct Piece(AtomicU64);

impl Piece {
    fn claim(&self, run: u64) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        state < 2 * run && self.0.compare_exchange(state, 2 * run, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Progress {
    /// For so many workers.
    pub(crate) fn new(threads: usize) -> Progress {
        let few = (0..OWN_PIECES * threads).map(|_| Piece::default()).collect();
        Progress { few, claimed: AtomicUsize::new(0), done: AtomicUsize::new(0) }
    }

    /// Forgets the last run; nobody may be at work.
    pub(crate) fn reset(&self) {
        self.claimed.store(0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Brings the state of what a worker is going to claim first into its cache.
    pub(crate) fn expect(&self, worker: &Worker) {
        if let Some(piece) = self.few.get(worker.index()) {
            kernels::prefetch_to_write(piece);
        }
    }

    /// Does pieces until none is left, then waits for those that others have begun. A worker that has begun none, its CPU
    /// being taken by another process, holds up nobody.
    pub(crate) fn share(&self, worker: &Worker, run: u64, pieces: usize, work: impl Fn(usize)) {
        self.share_and(worker, run, pieces, work, || {});
    }

    /// As [`Progress::share`]; while it waits, it does something else again and again.
    pub(crate) fn share_and(
        &self,
        worker: &Worker,
        run: u64,
        pieces: usize,
        work: impl Fn(usize),
        meanwhile: impl Fn(),
    ) {
        let wait = |done: &dyn Fn() -> bool| {
            worker.wait_until(|| {
                let done = done();
                if !done {
                    meanwhile();
                }
                done
            });
        };
        if let Some(few) = self.few.get(..pieces) {
            let (before, after) = few.split_at(worker.index().min(pieces));
            for (piece, state) in (before.len()..).zip(after).chain((0..).zip(before)) {
                if state.claim(run) {
                    work(piece);
                    state.0.store(2 * run + 1, Ordering::Release);
                }
            }
            wait(&|| few.iter().all(|state| state.0.load(Ordering::Acquire) > 2 * run));
            return;
        }
        while let Some(piece) = self.claim(worker.index(), pieces) {
            work(piece);
            self.done.fetch_add(1, Ordering::Release);
        }
        wait(&|| self.done.load(Ordering::Acquire) >= pieces);
    }

    /// A piece of many that nobody has begun: the one with the worker's own number or the next after it, so that workers who are
    /// all there know what they will get.
    fn claim(&self, worker: usize, pieces: usize) -> Option<usize> {
        if pieces > usize::BITS as usize {
            let piece = self.claimed.fetch_add(1, Ordering::Relaxed);
            return (piece < pieces).then_some(piece);
        }
        let all = usize::MAX.checked_shr(usize::BITS - pieces as u32).unwrap_or(0);
        let later = usize::MAX.checked_shl(worker as u32).unwrap_or(0);
        loop {
            let free = all & !self.claimed.load(Ordering::Relaxed);
            if free == 0 {
                return None;
            }
            let preferred = if free & later == 0 { free } else { free & later };
            let piece = preferred.trailing_zeros();
            if self.claimed.fetch_or(1 << piece, Ordering::Relaxed) & (1 << piece) == 0 {
                return Some(piece as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use centuple_kernels::ThreadPool;

    use super::*;

    #[test]
    fn pieces_are_claimed_once_and_by_their_workers_first() {
        for pieces in [0, 1, 3, 63, 64, 65, 200] {
            let progress = Progress::new(1);
            let mut claimed: Vec<usize> = (0..).map_while(|turn| progress.claim(turn % 5, pieces)).collect();
            if (5..=64).contains(&pieces) {
                assert_eq!(claimed[..5], [0, 1, 2, 3, 4]);
            }
            claimed.sort_unstable();
            assert_eq!(claimed, (0..pieces).collect::<Vec<_>>());
            assert_eq!(progress.claim(100, pieces), None);
        }
        assert_eq!(Progress::new(1).claim(100, 2), Some(0));
    }

    #[test]
    fn every_piece_is_done_once_in_each_run_and_before_anybody_goes_on() -> Result<(), Box<dyn std::error::Error>> {
        const THREADS: usize = 3;
        let pool = ThreadPool::new(THREADS)?;
        let stages: Vec<Progress> = (0..4).map(|_| Progress::new(THREADS)).collect();
        let times: Vec<AtomicUsize> = (0..OWN_PIECES * THREADS + 3).map(|_| AtomicUsize::default()).collect();
        let wrong = AtomicUsize::new(0);
        for run in 1..=3000 {
            stages.iter().for_each(Progress::reset);
            let pieces = run % (times.len() + 1);
            pool.run(&|worker| {
                // One comes late, another one in each run.
                if worker.index() == run % THREADS {
                    std::thread::yield_now();
                }
                for (stage, progress) in stages.iter().enumerate() {
                    progress.share(worker, run as u64, pieces, |piece| {
                        let before = times[piece].fetch_add(1, Ordering::Relaxed);
                        wrong.fetch_add(usize::from(before != stage), Ordering::Relaxed);
                    });
                    let early = times[..pieces].iter().any(|times| times.load(Ordering::Relaxed) <= stage);
                    wrong.fetch_add(usize::from(early), Ordering::Relaxed);
                }
            })?;
            assert_eq!(wrong.load(Ordering::Relaxed), 0, "run {run}, {pieces} pieces");
            for (piece, times) in times.iter().enumerate() {
                let times = times.swap(0, Ordering::Relaxed);
                assert_eq!(
                    times,
                    if piece < pieces { stages.len() } else { 0 },
                    "run {run}, piece {piece} of {pieces}"
                );
            }
        }
        Ok(())
    }
}
