//! Tokenizer files are refused, or they make a tokenizer that encodes any text or says why not.
//!
//! The input is `tokenizer_config.json` in the first line and `tokenizer.json` in the rest; an empty part is no file.

#![no_main]

use std::cell::RefCell;

use centuple_fuzz::{Folder, tokenise};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (config, tokenizer) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    FOLDER.with_borrow(|folder| {
        folder.put("tokenizer_config.json", Some(config).filter(|config| !config.is_empty()));
        folder.put("tokenizer.json", Some(tokenizer).filter(|tokenizer| !tokenizer.is_empty()));
        tokenise(folder);
    });
});
