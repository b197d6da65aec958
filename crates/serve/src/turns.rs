//! Whose batch is next, where several models share the same cores.
//!
//! The engines of a server take turns, one batch each, and a turn goes to the model that has had the least time of
//! the engine (start-time fair queueing by time). So a model whose batches take 50 ms and one whose batches take 5 ms get
//! the same share if both are busy, and one that is asked for now and then waits for a single batch of the others. Without it
//! the thread pool's lock would decide, which a busy thread takes again before one that sleeps has woken.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The turns of a server's models.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Seats that ask for a turn, by the time that they have had.
    asking: BTreeSet<(Duration, usize)>,
    /// How the threads of all seats are woken, by the seat's number.
    wake: HashMap<usize, Arc<Condvar>>,
    /// Number of the next seat.
    next: usize,
    /// Whose turn it is.
    holder: Option<usize>,
    /// What the last holder had had before its turn.
    level: Duration,
}

/// A model's claim to turns.
pub(crate) struct Seat {
    turns: Turns,
    number: usize,
    wake: Arc<Condvar>,
    /// Time that it has had, and that it would have had while it asked for none.
    had: Duration,
    asks: bool,
}

impl Turns {
    /// A seat for one more model.
    pub(crate) fn seat(&self) -> Seat {
        let wake = Arc::<Condvar>::default();
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.wake.insert(number, Arc::clone(&wake));
        drop(state);
        Seat { turns: self.clone(), number, wake, had: Duration::ZERO, asks: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the turn to whoever has had the least, unless somebody has it.
    fn pass(&mut self) {
        if self.holder.is_some() {
            return;
        }
        if let Some((had, number)) = self.asking.pop_first() {
            self.holder = Some(number);
            self.level = had;
            if let Some(wake) = self.wake.get(&number) {
                wake.notify_one();
            }
        }
    }
}

impl Seat {
    /// Asks for a turn, if it does not yet.
    fn ask(&mut self, state: &mut State) {
        if !std::mem::replace(&mut self.asks, true) {
            self.had = self.had.max(state.level);
            state.asking.insert((self.had, self.number));
            state.pass();
        }
    }

    /// Waits for the turn.
    pub(crate) fn take(&mut self) {
        let turns = self.turns.clone();
        let mut state = turns.lock();
        self.ask(&mut state);
        while state.holder != Some(self.number) {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a turn that took so long. `again`: it asks for another one at once, and so does not let others
    /// go first for the moment that its thread needs until [`take`](Self::take).
    pub(crate) fn leave(&mut self, time: Duration, again: bool) {
        let turns = self.turns.clone();
        let mut state = turns.lock();
        self.had += time;
        self.asks = false;
        state.holder = None;
        if again {
            self.ask(&mut state);
        } else {
            state.pass();
        }
    }
}

impl Seat {
    /// Asks for no turn any more, and gives back the one that it may have.
    pub(crate) fn withdraw(&mut self) {
        if !std::mem::take(&mut self.asks) {
            return;
        }
        let mut state = self.turns.lock();
        state.asking.remove(&(self.had, self.number));
        if state.holder == Some(self.number) {
            state.holder = None;
        }
        state.pass();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.withdraw();
        self.turns.lock().wake.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The seat whose turn it is.
    fn holder(turns: &Turns) -> usize {
        turns.lock().holder.unwrap()
    }

    /// Seats that always ask and have turns of so many milliseconds; what each has had after `turns` turns.
    fn shares(lengths: &[u32], rounds: usize) -> Vec<Duration> {
        let turns = Turns::default();
        let mut seats: Vec<_> = lengths.iter().map(|_| turns.seat()).collect();
        seats.iter_mut().for_each(|seat| seat.ask(&mut turns.lock()));
        for _ in 0..rounds {
            let number = holder(&turns);
            seats[number].leave(lengths[number] * MILLISECOND, true);
        }
        seats.iter().map(|seat| seat.had).collect()
    }

    #[test]
    fn busy_models_get_the_same_time() {
        for lengths in [vec![50, 5], vec![1, 1, 1], vec![7, 30, 1, 2]] {
            let shares = shares(&lengths, 2000);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(*most - *least <= *lengths.iter().max().unwrap() * MILLISECOND, "{shares:?}");
        }
    }

    #[test]
    fn an_idle_model_is_next_and_saves_nothing_up() {
        let turns = Turns::default();
        let (mut busy, mut idle) = (turns.seat(), turns.seat());
        busy.ask(&mut turns.lock());
        for _ in 0..100 {
            busy.leave(10 * MILLISECOND, true);
        }
        idle.ask(&mut turns.lock());
        assert_eq!(holder(&turns), busy.number);
        busy.leave(10 * MILLISECOND, true);
        assert_eq!(holder(&turns), idle.number);
        idle.leave(15 * MILLISECOND, true);
        assert_eq!(holder(&turns), busy.number);
    }

    #[test]
    fn a_seat_that_goes_holds_up_nobody() {
        let turns = Turns::default();
        let (mut first, mut second, mut third) = (turns.seat(), turns.seat(), turns.seat());
        [&mut first, &mut second, &mut third].into_iter().for_each(|seat| seat.ask(&mut turns.lock()));
        drop(second);
        drop(first);
        assert_eq!(holder(&turns), 2);
        third.take();
        third.leave(MILLISECOND, false);
        assert!(turns.lock().holder.is_none());
    }

    #[test]
    fn one_at_a_time() {
        let turns = Turns::default();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (mut seat, inside) = (turns.seat(), &inside);
                scope.spawn(move || {
                    for round in 0..200 {
                        seat.take();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        seat.leave(MILLISECOND, round % 3 == 0);
                    }
                });
            }
        });
    }
}
