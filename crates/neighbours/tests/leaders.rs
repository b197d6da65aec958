//! Leader clustering against its definition, computed pair by pair.

use centuple_neighbours::{Leaders, NeighbourError, Place};
use proptest::prelude::*;

/// Numbers of a generator, about normally distributed.
struct Random(u64);

impl Random {
    fn number(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..6 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            sum += (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5;
        }
        sum
    }

    fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.number()).collect()
    }

    fn near(&mut self, vector: &[f32], noise: f32) -> Vec<f32> {
        vector.iter().map(|x| x + noise * self.number()).collect()
    }

    /// Some topics, texts about them, and copies of these with small changes, in one stream.
    fn stream(&mut self, dimension: usize, count: usize) -> Vec<Vec<f32>> {
        let topics: Vec<_> = (0..20).map(|_| self.vector(dimension)).collect();
        let mut stream: Vec<Vec<f32>> = Vec::new();
        for place in 0..count {
            let vector = match place % 3 {
                2 => {
                    let earlier = stream[place * 31 % stream.len()].clone();
                    let noise = self.number().abs();
                    self.near(&earlier, 0.6 * noise)
                }
                _ => self.near(&topics[place % topics.len()], 1.5),
            };
            stream.push(vector);
        }
        stream
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn places(vectors: &[Vec<f32>], threshold: f32) -> Vec<Place> {
    let mut leaders = Leaders::new(vectors[0].len(), threshold).expect("a threshold");
    let numbered = (1000..).zip(vectors);
    numbered.map(|(label, vector)| leaders.place(label, vector).expect("a place")).collect()
}

/// Whether each place follows from the vectors before it, where `SLACK` is what rounding may change.
fn check(vectors: &[Vec<f32>], places: &[Place], threshold: f32) {
    const SLACK: f64 = 0.0015;
    const DRIFT: f64 = 0.15;
    let mut leader_of: Vec<usize> = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let to = |other: usize| cosine(&vectors[other], &vectors[at]);
        let resembles_leader = |other: &usize| {
            *other == leader_of[*other] || to(leader_of[*other]) >= f64::from(threshold) - DRIFT + SLACK
        };
        let nearest = (0..at).filter(resembles_leader).map(to).fold(-1.0, f64::max);
        match place {
            Place::Leader => {
                assert!(nearest < f64::from(threshold) + SLACK, "{at} leads, but is {nearest} from another");
                leader_of.push(at);
            }
            Place::Joined { leader, similarity } => {
                let leader = *leader as usize - 1000;
                assert_eq!(leader_of[leader], leader, "{at} has joined {leader}, which leads nothing");
                let similarity = f64::from(*similarity);
                let members = (0..at).filter(|&other| leader_of[other] == leader);
                assert!(
                    members.map(to).any(|own| (own - similarity).abs() < SLACK),
                    "{at}: nobody is {similarity} away"
                );
                assert!(similarity > f64::from(threshold) - 0.00051, "{at} is below the threshold");
                // In a crowd the very nearest may be missed, but not by much.
                assert!(similarity > nearest - 0.05, "{at}: one is {nearest} away, nearer than {similarity}");
                leader_of.push(leader);
            }
        }
    }
}

#[test]
fn places_follow_from_the_leaders_before() {
    for (dimension, threshold) in [(8, 0.9), (48, 0.7), (384, 0.8), (384, 0.95), (1024, 0.9)] {
        let vectors = Random(dimension as u64).stream(dimension, 1500);
        let places = places(&vectors, threshold);
        let joined = places.iter().filter(|place| **place != Place::Leader).count();
        assert!(joined > 50 && joined < 1400, "{dimension}, {threshold}: {joined} joined");
        check(&vectors, &places, threshold);
    }
}

#[test]
fn the_same_vectors_have_the_same_places() {
    let vectors = Random(3).stream(384, 3000);
    let once = places(&vectors, 0.8);
    // A thread of its own, among others that do the same.
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| places(&vectors, 0.8))).collect();
        for run in runs {
            assert_eq!(run.join().expect("it ends"), once);
        }
    });
    // What comes later changes nothing.
    assert_eq!(places(&vectors[..1234], 0.8), once[..1234]);
}

#[test]
fn length_does_not_matter_and_zeros_resemble_nothing() {
    let vectors = [vec![0.0, 3e-20, 0.0], vec![0.0, 5e18, 0.0], vec![0.0; 3], vec![0.0; 3], vec![0.0, -1.0, 0.0]];
    let places = places(&vectors, 1.0);
    assert_eq!(places[1], Place::Joined { leader: 1000, similarity: 1.0 });
    for other in [0, 2, 3, 4] {
        assert_eq!(places[other], Place::Leader, "{other}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for threshold in [0.0, -0.5, 1.001, f32::NAN, f32::INFINITY] {
        assert!(matches!(Leaders::new(4, threshold), Err(NeighbourError::Threshold(_))), "{threshold}");
    }
    assert!(matches!(Leaders::new(0, 0.9), Err(NeighbourError::NoDimensions)));
    let mut leaders = Leaders::new(2, 0.9).expect("it makes sense");
    assert!(matches!(leaders.place(0, &[1.0]), Err(NeighbourError::Length { found: 1, expected: 2 })));
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(leaders.place(0, &[1.0, bad]), Err(NeighbourError::NotFinite)));
    }
    assert_eq!(leaders.place(0, &[1.0, 0.0]).expect("it is fine"), Place::Leader);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_streams_follow_the_definition(
        seed in 1u64..u64::MAX, dimension in 2usize..70, count in 1usize..200, threshold in 0.3f32..1.0,
    ) {
        let vectors = Random(seed).stream(dimension, count);
        check(&vectors, &places(&vectors, threshold), threshold);
    }

    #[test]
    fn exact_copies_join_at_every_threshold(seed in 1u64..u64::MAX, threshold in 0.3f32..=1.0) {
        let vectors = Random(seed).stream(48, 100);
        let twice = [&vectors[..], &vectors[..]].concat();
        let places = places(&twice, threshold);
        prop_assert!(places[vectors.len()..].iter().all(|place| *place != Place::Leader));
    }

    #[test]
    fn what_a_threshold_joins_is_similar_enough_for_all_lower_ones(
        seed in 1u64..u64::MAX, low in 0.3f32..0.7, high in 0.7f32..1.0,
    ) {
        // A leader of the higher threshold may have joined another at the lower one; but no vector that finds a leader at
        // the higher threshold is alone at the lower one while that leader leads.
        let vectors = Random(seed).stream(48, 150);
        let (strict, lax) = (places(&vectors, high), places(&vectors, low));
        for (strict, lax_own) in strict.iter().zip(&lax) {
            if let Place::Joined { leader, .. } = strict
                && lax[*leader as usize - 1000] == Place::Leader
            {
                prop_assert_ne!(*lax_own, Place::Leader);
            }
        }
    }
}
