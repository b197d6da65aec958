//! Tokenizer files are refused, or they make a tokenizer that encodes any text or says why not.
//!
//! The input is `tokenizer_config.json` in the first line and `tokenizer.json` in the rest; an empty part is no file.

#![no_main]

use std::cell::RefCell;

use centuple_fuzz::Folder;
use centuple_text::{Text, TextOptions, Tokenizer, Truncation, max_tokens};
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] =
    ["", "Hello world! 3.14", "今天 😀 \u{0}\u{301}é [MASK]", "a a a a a a a a a a a a a a a a a a"];

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (config, tokenizer) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    FOLDER.with_borrow(|folder| {
        folder.put("tokenizer_config.json", Some(config).filter(|config| !config.is_empty()));
        folder.put("tokenizer.json", Some(tokenizer).filter(|tokenizer| !tokenizer.is_empty()));
        let Ok(max_tokens) = max_tokens(folder.path(), 16, None) else { return };
        assert!(max_tokens <= 16);
        let options = TextOptions { cache_bytes: 0, ..TextOptions::new(max_tokens) };
        let Ok(tokenizer) = Tokenizer::open(folder.path(), &options) else { return };
        for text in TEXTS {
            for truncation in [Truncation::Right, Truncation::Left, Truncation::Refuse] {
                for text in [Text::Single(text), Text::Pair(text, "world")] {
                    let Ok(encoding) = tokenizer.encode(text, truncation) else { continue };
                    assert!((1..=max_tokens).contains(&encoding.ids.len()));
                    assert_eq!(encoding.ids.len(), encoding.type_ids.len());
                }
            }
            let _ = tokenizer.encode_prompted("Hello ", text, Truncation::Right);
        }
    });
});
