//! A GGUF file is refused; or its tensors, its graph and its tokenizer are sound as far as it has them.

#![no_main]

use std::path::Path;

use centuple_gguf::Header;
use centuple_models::checkpoint::gguf::Gguf;
use centuple_models::{Purpose, generation_config_of_gguf, load_gguf};
use centuple_text::{Text, TextOptions, Tokenizer, Truncation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(header) = Header::read(data) else { return };
    for tensor in header.tensors.values() {
        let mut values = vec![0.0; tensor.elements()];
        tensor.kind.dequantize(&data[tensor.range.clone()], &mut values);
    }
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(64) };
    if let Ok(tokenizer) = Tokenizer::from_gguf(Path::new("fuzzed"), &header.metadata, &options) {
        for text in ["", "Hello  world! 3.14", "今天 😀 \u{0}\u{301}é <s>"] {
            let Ok(encoding) = tokenizer.encode(Text::Single(text), Truncation::Right) else { continue };
            assert!((1..=64).contains(&encoding.ids.len()));
            let _ = tokenizer.decode(&encoding.ids, true);
        }
    }
    let file = Gguf::from_bytes(data).expect("it was read before");
    let _ = generation_config_of_gguf(&file);
    if let Ok(model) = load_gguf(&file, Purpose::Own) {
        model.graph.verify().expect("what is built is sound");
    }
});
