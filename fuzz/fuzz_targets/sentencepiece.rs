//! A sentencepiece model is refused, or it makes a tokenizer that encodes any text or says why not.
//!
//! The first byte of the input says the class, as a letter; the rest is the model file.

#![no_main]

use std::cell::RefCell;

use centuple_fuzz::{Folder, tokenise};
use libfuzzer_sys::fuzz_target;

/// Classes and the file that each reads.
const CLASSES: [(&str, &str); 7] = [
    ("AlbertTokenizer", "spiece.model"),
    ("CamembertTokenizer", "sentencepiece.bpe.model"),
    ("DebertaV2Tokenizer", "spm.model"),
    ("LlamaTokenizer", "tokenizer.model"),
    ("MBartTokenizer", "sentencepiece.bpe.model"),
    ("T5Tokenizer", "spiece.model"),
    ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
];

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

fuzz_target!(|data: &[u8]| {
    let [class, model @ ..] = data else { return };
    let (class, file) = CLASSES[usize::from(class.wrapping_sub(b'a')) % CLASSES.len()];
    let config = format!(r#"{{"tokenizer_class": "{class}", "model_max_length": 16}}"#);
    FOLDER.with_borrow(|folder| {
        folder.put("tokenizer_config.json", Some(config.as_bytes()));
        folder.put(file, Some(model));
        tokenise(folder);
        folder.put(file, None);
    });
});
