//! A message of `ModelInfer` is refused with words, or it makes sequences that fit the model.

#![no_main]

use centuple_fuzz::models;
use centuple_serve::InferRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for model in models() {
        match InferRequest::parse_message(data).and_then(|request| request.sequences(model)) {
            Ok(sequences) => {
                assert!(!sequences.is_empty());
                sequences.iter().for_each(|sequence| model.limits.check(sequence).expect("it fits the model"));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
