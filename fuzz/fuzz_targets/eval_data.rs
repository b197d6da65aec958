//! An evaluation file is refused with words, or it holds examples that metrics and splits can take.
//!
//! The first byte of the input says the format, the second the kind of example that is asked for, as digits; the rest
//! is the file.

#![no_main]

use std::path::Path;

use centuple_receipt::data::{DataOptions, Example, Format, Kind, Limits, parse};
use centuple_receipt::metrics::{EntityF1, ExactMatch, Scored};
use centuple_receipt::{Split, SplitOptions};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { rows: 2000, field_bytes: 1 << 12, file_bytes: 1 << 20, values: 20_000 };

fuzz_target!(|data: &[u8]| {
    let [format, kind, file @ ..] = data else { return };
    let digit = |byte: &u8| usize::from(byte.wrapping_sub(b'0'));
    let options = DataOptions {
        format: Some(Format::ALL[digit(format) % Format::ALL.len()]),
        // Beyond the kinds: the columns decide.
        kind: Kind::ALL.get(digit(kind)).copied(),
        limits: LIMITS,
        ..DataOptions::default()
    };
    match parse(Path::new("fuzzed"), file.to_vec(), &options) {
        Ok(data) => {
            assert!((1..=LIMITS.rows).contains(&data.examples.len()));
            data.examples.iter().for_each(|example| check(example, data.kind));
            if let Ok(split) = Split::new(&data.examples, SplitOptions::default()) {
                assert_eq!(split.search.len() + split.verdict.len(), data.examples.len());
            }
        }
        Err(error) => assert!(error.to_string().starts_with("`fuzzed`"), "{error}"),
    }
});

/// What the type of an example does not say.
fn check(example: &Example, kind: Kind) {
    assert_eq!(example.kind(), kind);
    match example {
        Example::Similarity { score, .. } => assert!(score.is_finite()),
        Example::Entities { inputs, spans } => {
            let length = inputs.chars().count();
            assert!(spans.iter().all(|span| span.start < span.end && span.end <= length));
            let f1 = EntityF1::new(&[spans.clone()], &[spans.clone()]).expect("one text").point();
            assert_eq!(f1, Some(if spans.is_empty() { 0.0 } else { 1.0 }));
        }
        Example::Answer { answers, .. } => {
            let exact = ExactMatch::new(&[answers.clone()], &answers[..1]).expect("one question").point();
            assert_eq!(exact, Some(1.0));
        }
        Example::Text { .. } | Example::Plain { .. } => {}
    }
}
