//! Hours of everything at once, in short: afterwards the server holds what it held before.
//!
//! `CENTUPLE_SOAK_SECONDS` is how long (5 by default), `CENTUPLE_SOAK_MODEL` a folder to serve instead of the tiny embedder,
//! `CENTUPLE_SOAK_TEXTS` how many texts there are (200 by default): with so many that caches fill, memory needs longer to reach
//! its level.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Server;
use crate::tiny::Tiny;
use crate::traffic::{Client, Models};
use crate::vitals::{Vitals, metric};

const CLIENTS: u64 = 12;
/// Share of memory that may be more than it was in the warm-up.
const SHARE: f64 = 0.05;
/// What an allocator keeps or gives back as it happens, in KiB; much of the memory of tiny models.
const SLACK: f64 = 16.0 * 1024.0;

#[test]
fn the_server_holds_what_it_held_before() {
    let seconds: f64 = env::var("CENTUPLE_SOAK_SECONDS").map_or(5.0, |text| text.parse().expect("a number of seconds"));
    let pool = env::var("CENTUPLE_SOAK_TEXTS").map_or(200, |text| text.parse().expect("a number of texts"));
    let [embedder, classifier, ranker] = ["sentence-mean", "classify", "one-label"].map(Tiny::new);
    let tagger = Tiny::of_pipeline("ner");
    let embedder_path = env::var_os("CENTUPLE_SOAK_MODEL").map_or(embedder.path(), PathBuf::from);
    let paths = [embedder_path, classifier.path(), ranker.path(), tagger.path()];
    let names = paths.each_ref().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned());
    let [embedder, classifier, ranker, tagger] = names;
    let models = Models { embedder, classifier, ranker, tagger };
    let server = Server::start(&paths, &[]);
    let (fresh, start) = (Vitals::of(&server), Instant::now());

    let mut seen = Seen::new();
    let (mut round, highest) = (0, Cell::new(0));
    let mut run = |deed: &Deed| {
        round += 1;
        add(&mut seen, load(&server.address, &models, round, pool, deed));
        let vitals = Vitals::of(&server);
        highest.set(highest.get().max(vitals.memory));
        println!("{:4.0} s: {vitals:?}", start.elapsed().as_secs_f64());
    };
    let mix = |seconds: f64| Deed::Mix(Duration::from_secs_f64(seconds));
    run(&Deed::Fill);
    let warm_up = (seconds / 10.0).max(15.0);
    (0..4).for_each(|_| run(&mix(warm_up / 4.0)));
    let (level, before) = (highest.get(), Vitals::at_rest(&server, None));
    (0..10).for_each(|_| run(&mix(seconds / 10.0)));
    let after = Vitals::at_rest(&server, Some(before));

    println!("{seconds} s, {} answers: {seen:?}", seen.values().sum::<usize>());
    println!("fresh {fresh:?}\nafter the warm-up {before:?}\nafter all {after:?}");
    assert!(after.memory as f64 <= level as f64 * (1.0 + SHARE) + SLACK, "{level} KiB have become {after:?}");
    assert_eq!(metric(&server, "te_request_failure{err=\"internal\"}"), 0.0);
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
    assert!(!log.concat().contains("panicked"), "{log:?}");
}

/// Answers by status.
type Seen = BTreeMap<String, usize>;

/// What the clients do.
enum Deed {
    /// They fill the caches.
    Fill,
    /// They do what they like for so long.
    Mix(Duration),
}

/// Lets every client do a deed; what they have seen.
fn load(address: &str, models: &Models, round: u64, pool: usize, deed: &Deed) -> Seen {
    let start = Instant::now();
    let work = |seed: u64| {
        let mut client = Client::new(address, models, seed, pool);
        match deed {
            Deed::Fill => client.fill(),
            Deed::Mix(time) => {
                while start.elapsed() < *time {
                    client.step()
                }
            }
        }
        client.seen
    };
    thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || work(round << 32 | client))).collect();
        let mut seen = Seen::new();
        clients.into_iter().for_each(|client| add(&mut seen, client.join().expect("a client ends")));
        seen
    })
}

fn add(seen: &mut Seen, more: Seen) {
    more.into_iter().for_each(|(name, count)| *seen.entry(name).or_insert(0) += count);
}
