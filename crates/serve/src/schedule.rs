//! The order in which waiting sequences are computed.
//!
//! First clients share: the one that has been given the fewest tokens is next (start-time fair
//! queueing), so a client with 10,000 texts and one with a single text get the same. A client that
//! was idle starts level with the others and saves nothing up.
//!
//! Then, within a client, the request of the lowest *rank* is next:
//!
//! ```text
//! rank = tokens that its client had been given when it came + tokens of it that still wait
//! ```
//!
//! So the shorter one goes first, and a request ages by a token with every token that its client
//! is given: whatever comes after its client was given as many tokens as the request has in all goes
//! behind it, however short. Equally long requests go in the order in which they came.
//!
//! Every step costs the logarithm of what waits. Ages are counted in tokens and not in seconds, so
//! the order depends on no clock.

use std::{
    collections::{BTreeSet, HashMap},
    vec,
};

use centuple_tasks::Sequence;

use crate::call::Client;

/// A request in the schedule. Numbers ascend and never come back.
pub(crate) type Id = u64;

/// What waits, in order.
#[derive(Default)]
pub(crate) struct Schedule {
    requests: HashMap<Id, Request>,
    lanes: HashMap<Client, Lane>,
    /// Clients with something that waits, by the tokens that they were given.
    next: BTreeSet<(u64, Client)>,
    /// Tokens that the client which was served last had been given before.
    level: u64,
    tokens: usize,
    last: Id,
}

/// What waits of one client.
#[derive(Default)]
struct Lane {
    /// Tokens it was given, and those that it would have been given while it was idle.
    given: u64,
    /// Its requests by their rank.
    order: BTreeSet<(u64, Id)>,
    tokens: usize,
}

/// What waits of one request.
struct Request {
    client: Client,
    /// Tokens that its client had been given when it came.
    came: u64,
    tokens: usize,
    sequences: vec::IntoIter<Sequence>,
}

impl Request {
    fn rank(&self) -> u64 {
        self.came + self.tokens as u64
    }
}

/// A sequence whose turn it is.
pub(crate) struct Pick {
    pub(crate) id: Id,
    pub(crate) sequence: Sequence,
}

impl Schedule {
    /// Number of requests with a sequence that waits.
    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Number of tokens that wait.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Number of tokens of a client that wait.
    pub(crate) fn tokens_of(&self, client: Client) -> usize {
        self.lanes.get(&client).map_or(0, |lane| lane.tokens)
    }

    /// Lets a client's sequences, one or more, wait.
    pub(crate) fn insert(&mut self, client: Client, sequences: Vec<Sequence>) -> Id {
        self.last += 1;
        let tokens = sequences.iter().map(Sequence::len).sum();
        let lane = self.lanes.entry(client).or_default();
        if lane.order.is_empty() {
            lane.given = lane.given.max(self.level);
            self.next.insert((lane.given, client));
        }
        let request = Request { client, came: lane.given, tokens, sequences: sequences.into_iter() };
        lane.order.insert((request.rank(), self.last));
        lane.tokens += tokens;
        self.tokens += tokens;
        self.requests.insert(self.last, request);
        self.last
    }

    /// Forgets what waits of a request, if anything does.
    pub(crate) fn remove(&mut self, id: Id) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.tokens -= request.tokens;
        let Some(lane) = self.lanes.get_mut(&request.client) else { return };
        lane.tokens -= request.tokens;
        lane.order.remove(&(request.rank(), id));
        if lane.order.is_empty() {
            self.next.remove(&(lane.given, request.client));
        }
    }

    /// The sequences that are next, up to `budget` tokens but at least one. They no longer wait.
    pub(crate) fn pick(&mut self, budget: usize) -> Vec<Pick> {
        let (mut picks, mut tokens) = (Vec::new(), 0);
        while let Some(pick) = self.pick_one(if picks.is_empty() { usize::MAX } else { budget - tokens }) {
            tokens += pick.sequence.len();
            picks.push(pick);
            if tokens >= budget {
                break;
            }
        }
        picks
    }

    /// The sequence that is next, if it has at most `room` tokens.
    fn pick_one(&mut self, room: usize) -> Option<Pick> {
        let &(given, client) = self.next.first()?;
        let lane = self.lanes.get_mut(&client)?;
        let &(rank, id) = lane.order.first()?;
        let request = self.requests.get_mut(&id)?;
        if request.sequences.as_slice().first()?.len() > room {
            return None;
        }
        let sequence = request.sequences.next()?;
        let tokens = sequence.len();
        lane.order.remove(&(rank, id));
        request.tokens -= tokens;
        lane.tokens -= tokens;
        self.tokens -= tokens;
        if request.sequences.len() == 0 {
            self.requests.remove(&id);
        } else {
            lane.order.insert((request.rank(), id));
        }
        self.next.remove(&(given, client));
        self.level = given;
        lane.given += tokens as u64;
        if !lane.order.is_empty() {
            self.next.insert((lane.given, client));
        }
        Some(Pick { id, sequence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request as its client and the lengths of its sequences.
    type Asked = (usize, Vec<usize>);

    /// Sequences of these lengths.
    fn sequences(lengths: &[usize]) -> Vec<Sequence> {
        lengths.iter().enumerate().map(|(index, length)| Sequence::from_ids(vec![index as u32; *length])).collect()
    }

    fn insert(schedule: &mut Schedule, (client, lengths): &Asked) -> Id {
        schedule.insert(Client(*client), sequences(lengths))
    }

    fn asked(clients: usize) -> impl Strategy<Value = Vec<Asked>> {
        proptest::collection::vec((0..clients, proptest::collection::vec(1usize..20, 1..30)), 1..12)
    }

    fn tokens(picks: &[Pick]) -> usize {
        picks.iter().map(|pick| pick.sequence.len()).sum()
    }

    /// Picks until nothing waits; the requests by the tokens that were computed when each was done.
    fn ends(schedule: &mut Schedule, budget: usize) -> HashMap<Id, usize> {
        let (mut ends, mut done) = (HashMap::new(), 0);
        loop {
            let picks = schedule.pick(budget);
            if picks.is_empty() {
                return ends;
            }
            for pick in picks {
                done += pick.sequence.len();
                ends.insert(pick.id, done);
            }
        }
    }

    proptest! {
        #[test]
        fn each_sequence_is_picked_once_in_its_order_and_within_the_budget(
            asked in asked(4), removed in proptest::collection::vec(any::<bool>(), 12), budget in 1usize..60,
        ) {
            let mut schedule = Schedule::default();
            let ids: Vec<Id> = asked.iter().map(|asked| insert(&mut schedule, asked)).collect();
            for (id, _) in ids.iter().zip(&removed).filter(|(_, removed)| **removed) {
                schedule.remove(*id);
            }
            let mut found: HashMap<Id, Vec<Sequence>> = HashMap::new();
            loop {
                let (waiting, picks) = (schedule.tokens(), schedule.pick(budget));
                if picks.is_empty() {
                    break;
                }
                prop_assert!(tokens(&picks) <= budget || picks.len() == 1);
                prop_assert_eq!(schedule.tokens(), waiting - tokens(&picks));
                for pick in picks {
                    found.entry(pick.id).or_default().push(pick.sequence);
                }
            }
            prop_assert_eq!((schedule.requests(), schedule.tokens()), (0, 0));
            for ((id, (client, lengths)), removed) in ids.iter().zip(&asked).zip(removed) {
                let expected = if removed { None } else { Some(sequences(lengths)) };
                prop_assert_eq!(found.remove(id), expected);
                prop_assert_eq!(schedule.tokens_of(Client(*client)), 0);
            }
        }

        /// While all of them wait, no client is ahead of another by more than two longest sequences.
        #[test]
        fn clients_are_given_equally_many_tokens(
            lengths in proptest::collection::vec(proptest::collection::vec(1usize..20, 100), 2..6), budget in 1usize..300,
        ) {
            let mut schedule = Schedule::default();
            for (client, lengths) in lengths.iter().enumerate() {
                // One sends all at once, the next one by one, and so on.
                let parts = if client % 2 == 0 { 100 } else { 1 };
                for part in lengths.chunks(parts) {
                    insert(&mut schedule, &(client, part.to_vec()));
                }
            }
            let clients = 0..lengths.len();
            let all: Vec<usize> = clients.clone().map(|client| schedule.tokens_of(Client(client))).collect();
            loop {
                schedule.pick(budget);
                let left: Vec<usize> = clients.clone().map(|client| schedule.tokens_of(Client(client))).collect();
                if left.contains(&0) {
                    break;
                }
                let given = clients.clone().map(|client| all[client] - left[client]);
                let (least, most) = (given.clone().min().unwrap(), given.max().unwrap());
                prop_assert!(most - least < 2 * 20, "{least} to {most}");
            }
        }

        /// Of those that wait together, one that is shorter is never done after one that is longer.
        #[test]
        fn the_shorter_one_is_first(asked in asked(1), budget in 1usize..60) {
            let mut schedule = Schedule::default();
            let ids: Vec<Id> = asked.iter().map(|asked| insert(&mut schedule, asked)).collect();
            let ends = ends(&mut schedule, budget);
            let total = |index: usize| asked[index].1.iter().sum::<usize>();
            for one in 0..asked.len() {
                for other in 0..one {
                    let in_order = (total(other), ids[other]) < (total(one), ids[one]);
                    prop_assert_eq!(ends[&ids[other]] < ends[&ids[one]], in_order);
                }
            }
        }

        /// Of what comes later, only what comes before its client was given as many tokens as the request has goes first,
        /// however much that is.
        #[test]
        fn nothing_starves(own in 1usize..400, flood in 1usize..20, budget in 20usize..60) {
            let mut schedule = Schedule::default();
            let id = insert(&mut schedule, &(0, vec![1; own]));
            let (mut given, mut came) = (0, HashMap::from([(id, 0)]));
            while schedule.requests.contains_key(&id) {
                // Shorter requests keep coming, more than are computed.
                for _ in 0..=budget / flood {
                    came.insert(insert(&mut schedule, &(0, vec![flood])), given);
                }
                for pick in schedule.pick(budget) {
                    given += pick.sequence.len();
                    prop_assert!(came[&pick.id] < own || !schedule.requests.contains_key(&id));
                }
            }
        }
    }

    #[test]
    fn a_client_that_was_idle_is_level_and_not_ahead() {
        let mut schedule = Schedule::default();
        insert(&mut schedule, &(0, vec![1; 1000]));
        schedule.pick(500);
        insert(&mut schedule, &(1, vec![1; 1000]));
        let of_second = |picks: &[Pick]| picks.iter().filter(|pick| pick.id == 2).count();
        assert_eq!(of_second(&schedule.pick(100)), 50);
        schedule.remove(2);
        schedule.pick(100);
        insert(&mut schedule, &(1, vec![1; 1000]));
        assert!((49..=51).contains(&schedule.pick(100).iter().filter(|pick| pick.id == 3).count()));
    }

    #[test]
    fn a_long_request_goes_before_what_comes_after_its_time() {
        let mut schedule = Schedule::default();
        let long = insert(&mut schedule, &(0, vec![10; 3]));
        for _ in 0..2 {
            insert(&mut schedule, &(0, vec![10]));
            assert_ne!(schedule.pick(10)[0].id, long);
        }
        insert(&mut schedule, &(0, vec![10]));
        assert_eq!(schedule.pick(10)[0].id, long);
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_behind() {
        let mut schedule = Schedule::default();
        let id = insert(&mut schedule, &(3, vec![5, 5]));
        schedule.pick(5);
        schedule.remove(id);
        schedule.remove(id);
        assert_eq!((schedule.requests(), schedule.tokens(), schedule.tokens_of(Client(3))), (0, 0, 0));
        assert!(schedule.next.is_empty() && schedule.pick(9).is_empty());
    }
}
