//! Folders whose tokenizer files are damaged, incomplete or not understood.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use centuple_text::{Text, TextError, TextOptions, Tokenizer, Truncation, WindowOptions};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// A class, the name of its file, and a file of the fixtures.
const FILES: [(&str, &str, &str); 8] = [
    ("AlbertTokenizer", "spiece.model", "albert.model"),
    ("BertTokenizer", "vocab.txt", "bert.vocab.txt"),
    ("BertTokenizer", "tokenizer.json", "bert.tokenizer.json"),
    ("CamembertTokenizer", "sentencepiece.bpe.model", "fairseq.model"),
    ("DebertaV2Tokenizer", "spm.model", "fairseq-bpe.model"),
    ("LlamaTokenizer", "tokenizer.model", "llama.model"),
    ("T5Tokenizer", "spiece.model", "t5.model"),
    ("XLNetTokenizer", "spiece.model", "xlnet.model"),
];

fn fixture(name: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classes/files");
    Ok(fs::read(folder.join(name))?)
}

/// A folder of files, each with its content.
fn folder_of(files: &[(&str, &[u8])]) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for (name, content) in files {
        fs::write(folder.path().join(name), content)?;
    }
    Ok(folder)
}

fn open(folder: &TempDir) -> Result<Tokenizer, TextError> {
    Tokenizer::open(folder.path(), &TextOptions { cache_bytes: 0, ..TextOptions::new(16) })
}

#[track_caller]
fn assert_refused(files: &[(&str, &[u8])], expected: &str) -> Outcome {
    match open(&folder_of(files)?) {
        Ok(_) => panic!("must be refused: {expected}"),
        Err(error) => assert!(error.to_string().contains(expected), "{error}"),
    }
    Ok(())
}

fn class(name: &str) -> Vec<u8> {
    format!(r#"{{"tokenizer_class": "{name}"}}"#).into_bytes()
}

#[test]
fn what_is_not_understood_is_refused_by_name() -> Outcome {
    let unknown = class("CpmTokenizer");
    assert_refused(
        &[("tokenizer_config.json", &unknown), ("source.spm", b"")],
        "not understood for CpmTokenizer; save one with transformers",
    )?;
    assert_refused(&[("config.json", br#"{"model_type": "fsmt"}"#)], "for the model type `fsmt`")?;
    assert_refused(&[("tokenizer_config.json", &class("GemmaTokenizer"))], "not understood for GemmaTokenizer")?;
    let roformer = [("tokenizer_config.json", &class("RoFormerTokenizer")[..]), ("vocab.txt", b"[UNK]\n")];
    assert_refused(&roformer, "RoFormerTokenizer finds Chinese words with jieba, which is not built in")?;
    let json = fixture("bert.tokenizer.json")?;
    assert_refused(&[("config.json", br#"{"model_type": "roformer"}"#), ("tokenizer.json", &json)], "jieba")
}

#[test]
fn missing_files_are_named() -> Outcome {
    let roberta = class("RobertaTokenizerFast");
    assert_refused(&[("tokenizer_config.json", &roberta)], "nor vocab.json, which RobertaTokenizer needs")?;
    let vocabulary = fixture("bytes.vocab.json")?;
    let files = [("tokenizer_config.json", &roberta[..]), ("vocab.json", &vocabulary)];
    assert_refused(&files, "nor merges.txt, which RobertaTokenizer needs")?;
    assert_refused(&[("config.json", br#"{"model_type": "t5"}"#)], "nor spiece.model, which T5Tokenizer needs")?;
    let marian = class("MarianTokenizer");
    assert_refused(&[("tokenizer_config.json", &marian)], "nor source.spm, which MarianTokenizer needs")?;
    assert_refused(&[("config.json", br#"{"model_type": "m2m_100"}"#)], "nor sentencepiece.bpe.model, which M2M100")?;
    assert_refused(&[("vocab.json", &vocabulary)], "names a class")
}

#[test]
fn damaged_files_are_refused() -> Outcome {
    let (gpt2, t5) = (class("GPT2Tokenizer"), class("T5Tokenizer"));
    let vocabulary = fixture("bytes.vocab.json")?;
    let merges = |merges: &'static str| -> [(&str, &[u8]); 3] {
        [("tokenizer_config.json", &gpt2), ("vocab.json", &vocabulary), ("merges.txt", merges.as_bytes())]
    };
    assert!(open(&folder_of(&merges("#version\na b\n"))?).is_err(), "a pair that makes no piece");
    assert_refused(&merges("#version\na b c\n"), "merges.txt`: `a b c` is no pair")?;
    assert_refused(&merges("#version\na\n"), "`a` is no pair")?;
    // The first line is a heading, and a last one that doesn't end is none.
    assert!(open(&folder_of(&merges("a b c"))?).is_ok());
    let files = [("tokenizer_config.json", &gpt2[..]), ("vocab.json", b"{\"a\": -1}"), ("merges.txt", b"")];
    assert_refused(&files, "vocab.json`: ")?;
    let model =
        |content: &'static [u8]| -> [(&str, &[u8]); 2] { [("tokenizer_config.json", &t5), ("spiece.model", content)] };
    assert_refused(&model(b"not a model"), "spiece.model`: it is no sentencepiece model")?;
    assert_refused(&model(b"\x0a\x03\x0a\x01"), "it is no sentencepiece model")?;
    // Nothing but a trainer's algorithm: characters.
    assert_refused(&model(b"\x12\x02\x18\x04"), "its algorithm 4 is neither unigram nor BPE")?;
    let long = [b"\x0a\x8b\x10\x0a\x88\x10".as_slice(), &[b'a'; 2056]].concat();
    let files = [("tokenizer_config.json", &t5[..]), ("spiece.model", &long)];
    assert_refused(&files, "a piece has 2056 characters, more than 1024")
}

#[test]
fn configurations_are_checked() -> Outcome {
    let vocabulary = fixture("bert.vocab.txt")?;
    let refused = |config: &str, expected: &str| {
        assert_refused(&[("tokenizer_config.json", config.as_bytes()), ("vocab.txt", &vocabulary)], expected)
    };
    refused(r#"{"do_lower_case": "yes"}"#, "do_lower_case: invalid type")?;
    refused(r#"{"mask_token": 7}"#, "mask_token is neither a text nor a token")?;
    refused(r#"{"cls_token": null}"#, "cls_token is not set")?;
    refused(r#"{"sep_token": "[END]", "unk_token": "[WHAT]"}"#, "`[WHAT]` is not in the vocabulary")?;
    refused(r#"{"additional_special_tokens": "[A]"}"#, "it is no list")?;
    refused(r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#, "added_tokens_decoder: ")?;
    let listed = [("vocab.txt", &vocabulary[..]), ("added_tokens.json", br#"{"a": -1}"#)];
    assert_refused(&listed, "the id of `a` is no token id")?;
    let model = fixture("t5.model")?;
    let many = br#"{"tokenizer_class": "T5Tokenizer", "extra_ids": 1000000}"#;
    assert_refused(&[("tokenizer_config.json", many), ("spiece.model", &model)], "extra_ids: 1000000 is more than")
}

#[test]
fn roles_without_a_token_are_none() -> Outcome {
    let vocabulary = fixture("bert.vocab.txt")?;
    let config = br#"{"mask_token": null, "bos_token": "the"}"#;
    let folder = folder_of(&[("tokenizer_config.json", config), ("vocab.txt", &vocabulary)])?;
    let tokenizer = open(&folder)?;
    let special = tokenizer.special_tokens();
    assert_eq!((&special.mask, &special.eos), (&None, &None));
    assert_eq!(special.bos.as_ref().map(|token| token.id), tokenizer.token_id("the"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_in_a_file_nothing_panics(
        (name, file, source) in select(FILES.to_vec()),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut content = fixture(source).expect("a fixture");
        for (index, byte) in changes {
            *index.get_mut(&mut content) = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        let folder = folder_of(&[("tokenizer_config.json", &class(name)), (file, &content)]).expect("a folder");
        if let Ok(tokenizer) = open(&folder) {
            for text in ["", "The harbour wakes. \u{301}🙂 [MASK]", "walks walks walks walks walks walks walks walks walks"] {
                if let Ok(encoding) = tokenizer.encode(Text::Pair(text, "a"), Truncation::Right) {
                    prop_assert!(encoding.ids.len() <= 16);
                    let _ = tokenizer.decode(&encoding.ids, false);
                }
                let _ = tokenizer.windows(Text::Single(text), &WindowOptions::new(16, 2));
            }
        }
    }
}
