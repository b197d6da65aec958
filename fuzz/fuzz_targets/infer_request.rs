//! A body of the Open Inference Protocol is refused with words, or it makes sequences that fit the model.

#![no_main]

use centuple_fuzz::models;
use centuple_serve::InferRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let json = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    for model in models() {
        let sequences = InferRequest::parse(body, json).and_then(|request| request.sequences(model));
        match sequences {
            Ok(sequences) => {
                assert!(!sequences.is_empty());
                sequences.iter().for_each(|sequence| model.limits.check(sequence).expect("it fits the model"));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
