//! The tokenizer against Hugging Face's encodings, its limits, and arbitrary text.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use centuple_text::{Encoding, Split, Text, TextError, TextOptions, Tokenizer, Truncation, WindowOptions, max_tokens};
use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

#[derive(Deserialize)]
struct Golden {
    encodings: Vec<GoldenEncoding>,
    prompts: Vec<GoldenPrompt>,
}

#[derive(Deserialize)]
struct GoldenEncoding {
    side: String,
    max_tokens: usize,
    first: String,
    second: Option<String>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct GoldenPrompt {
    prompt: String,
    text: String,
    max_tokens: usize,
    ids: Vec<u32>,
    prompt_tokens: usize,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn golden() -> Result<Golden, Box<dyn Error>> {
    Ok(serde_json::from_str(&fs::read_to_string(fixtures().join("encodings.json"))?)?)
}

fn open(max_tokens: usize) -> Result<Tokenizer, TextError> {
    Tokenizer::open(&fixtures().join("bert"), &TextOptions::new(max_tokens))
}

fn uncached(max_tokens: usize) -> Result<Tokenizer, TextError> {
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(max_tokens) };
    Tokenizer::open(&fixtures().join("bert"), &options)
}

/// A folder with some of the fixture's files and one more.
fn folder_with(kept: &[&str], name: &str, content: &str) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for file in kept {
        fs::copy(fixtures().join("bert").join(file), folder.path().join(file))?;
    }
    fs::write(folder.path().join(name), content)?;
    Ok(folder)
}

#[track_caller]
fn assert_refused<T>(result: Result<T, TextError>, expected: &str) {
    match result {
        Ok(_) => panic!("must be refused: {expected}"),
        Err(error) => assert!(error.to_string().contains(expected), "{error}"),
    }
}

fn assert_golden(tokenizer: &Tokenizer, case: &GoldenEncoding) -> Outcome {
    let text = match &case.second {
        Some(second) => Text::Pair(&case.first, second),
        None => Text::Single(&case.first),
    };
    let truncation = if case.side == "left" { Truncation::Left } else { Truncation::Right };
    let encoding = tokenizer.encode(text, truncation)?;
    assert_eq!(encoding.ids, case.ids, "{text:?}, {truncation:?} at {}", case.max_tokens);
    assert_eq!(encoding.type_ids, case.type_ids, "{text:?}, {truncation:?} at {}", case.max_tokens);
    Ok(())
}

#[test]
fn encodings_equal_hugging_faces() -> Outcome {
    for case in golden()?.encodings {
        assert_golden(&open(case.max_tokens)?, &case)?;
    }
    Ok(())
}

#[test]
fn a_folder_with_only_a_vocabulary_encodes_the_same() -> Outcome {
    let folder = folder_with(&["vocab.txt"], "tokenizer_config.json", r#"{"cls_token": {"content": "[CLS]"}}"#)?;
    for case in golden()?.encodings {
        let tokenizer = Tokenizer::open(folder.path(), &TextOptions::new(case.max_tokens))?;
        assert_golden(&tokenizer, &case)?;
    }
    Ok(())
}

#[test]
fn prompts_are_counted_as_sentence_transformers_does() -> Outcome {
    for case in golden()?.prompts {
        let tokenizer = open(case.max_tokens)?;
        let encoding = tokenizer.encode_prompted(&case.prompt, &case.text, Truncation::Right)?;
        assert_eq!((&encoding.ids, encoding.prompt_tokens), (&case.ids, case.prompt_tokens), "{}", case.prompt);
        let plain = tokenizer.encode(Text::Single(&[case.prompt, case.text].concat()), Truncation::Right)?;
        assert_eq!((&plain.ids, plain.prompt_tokens), (&case.ids, 0));
    }
    Ok(())
}

#[test]
fn refusal_names_both_lengths() -> Outcome {
    let tokenizer = open(8)?;
    assert!(!tokenizer.encode(Text::Single("the tea"), Truncation::Refuse)?.truncated);
    assert!(tokenizer.encode(Text::Single(&"the ".repeat(7)), Truncation::Right)?.truncated);
    assert_refused(
        tokenizer.encode(Text::Single(&"the ".repeat(7)), Truncation::Refuse),
        "the text has 9 tokens, but at most 8 are allowed",
    );
    assert_refused(tokenizer.encode(Text::Pair(&"the ".repeat(5), "tea"), Truncation::Refuse), "has 9 tokens");
    Ok(())
}

#[test]
fn a_limit_without_room_is_refused() -> Outcome {
    assert_refused(open(2), "leaves no room for text beside 2 special tokens");
    let tokenizer = open(3)?;
    assert_eq!(tokenizer.encode(Text::Single("the tea"), Truncation::Right)?.ids.len(), 3);
    assert_refused(tokenizer.encode(Text::Pair("the", "tea"), Truncation::Right), "beside 3 special tokens");
    Ok(())
}

#[test]
fn lowercase_option_lowers_a_cased_tokenizer() -> Outcome {
    let config = r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": false}"#;
    let folder = folder_with(&["tokenizer.json"], "tokenizer_config.json", config)?;
    let cased = Tokenizer::open(folder.path(), &TextOptions::new(16))?;
    let options = TextOptions { lowercase: true, ..TextOptions::new(16) };
    let lowered = Tokenizer::open(folder.path(), &options)?;
    let expected = cased.encode(Text::Single("the tea"), Truncation::Right)?;
    assert_ne!(cased.encode(Text::Single("The TEA"), Truncation::Right)?, expected);
    assert_eq!(lowered.encode(Text::Single("The TEA"), Truncation::Right)?, expected);
    Ok(())
}

#[test]
fn vocabulary_size_is_beyond_the_largest_id() -> Outcome {
    let lines = fs::read_to_string(fixtures().join("bert/vocab.txt"))?.lines().count();
    assert_eq!(open(16)?.vocabulary_size(), lines);
    Ok(())
}

#[test]
fn broken_folders_are_refused() -> Outcome {
    let options = TextOptions::new(16);
    let refused = |folder: &TempDir, expected: &str| assert_refused(Tokenizer::open(folder.path(), &options), expected);
    refused(&tempfile::tempdir()?, "has neither tokenizer.json nor vocab.txt");
    refused(&folder_with(&[], "tokenizer.json", "")?, "tokenizer.json`: EOF");
    refused(&folder_with(&[], "tokenizer.json", "{}")?, "tokenizer.json`: ");
    refused(&folder_with(&[], "tokenizer.json", "\u{0}garbage")?, "tokenizer.json`: ");
    refused(&folder_with(&[], "vocab.txt", "no\nspecial\ntokens\n")?, "`[UNK]` is not in the vocabulary");
    refused(&folder_with(&["tokenizer.json"], "tokenizer_config.json", "{")?, "tokenizer_config.json`: EOF");
    let other = r#"{"tokenizer_class": "MarianTokenizer"}"#;
    refused(
        &folder_with(&["vocab.txt"], "tokenizer_config.json", other)?,
        "has neither tokenizer.json nor source.spm, which MarianTokenizer needs",
    );
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("tokenizer.json"))?;
    refused(&folder, "cannot read");
    Ok(())
}

#[test]
fn the_limit_is_the_models_the_modules_or_the_tokenizers() -> Outcome {
    let limit = |length: &str, max_seq_length| -> Result<usize, Box<dyn Error>> {
        let config = format!(r#"{{"model_max_length": {length}}}"#);
        Ok(max_tokens(folder_with(&[], "tokenizer_config.json", &config)?.path(), 512, max_seq_length)?)
    };
    assert_eq!(limit("128", None)?, 128);
    assert_eq!(limit("1000000000000000019884624838656", None)?, 512);
    assert_eq!(limit("1e30", None)?, 512);
    assert_eq!(limit("null", None)?, 512);
    assert_eq!(limit("0", None)?, 512);
    assert_eq!(limit("128", Some(256))?, 256);
    assert_eq!(limit("128", Some(1024))?, 512);
    assert_eq!(max_tokens(tempfile::tempdir()?.path(), 512, None)?, 512);
    Ok(())
}

#[test]
fn a_text_of_a_megabyte_is_cut() -> Outcome {
    let tokenizer = open(64)?;
    for unit in ["tea and bread ", "x", " ", ".", "\u{1f375}", "e\u{301}", "\u{4eca}", "\0", "[SEP]"] {
        let text = unit.repeat((1 << 20) / unit.len());
        for truncation in [Truncation::Right, Truncation::Left] {
            assert!(tokenizer.encode(Text::Single(&text), truncation)?.ids.len() <= 64);
        }
    }
    Ok(())
}

fn any_truncation() -> impl Strategy<Value = Truncation> {
    prop_oneof![Just(Truncation::Right), Just(Truncation::Left), Just(Truncation::Refuse)]
}

/// The tokens without the first and the last, which are special.
fn inside(encoding: &Encoding) -> &[u32] {
    &encoding.ids[1..encoding.ids.len() - 1]
}

proptest! {
    #[test]
    fn any_text_fits_and_the_cache_changes_nothing(
        first in any::<String>(), second in prop::option::of("\\PC{0,40}"), limit in 4usize..20, truncation in any_truncation(),
    ) {
        let text = match &second {
            Some(second) => Text::Pair(&first, second),
            None => Text::Single(&first),
        };
        let cached = open(limit)?;
        let plain = uncached(limit)?.encode(text, truncation);
        for _ in 0..2 {
            match (&plain, cached.encode(text, truncation)) {
                (Ok(plain), Ok(cached)) => prop_assert_eq!(plain, &cached),
                (Err(plain), Err(cached)) => prop_assert_eq!(plain.to_string(), cached.to_string()),
                (plain, cached) => prop_assert!(false, "{plain:?} but cached {cached:?}"),
            }
        }
        if let Ok(encoding) = plain {
            prop_assert!(encoding.ids.len() <= limit);
            prop_assert_eq!(encoding.ids.len(), encoding.type_ids.len());
        }
    }

    #[test]
    fn truncation_keeps_one_end(text in "[a-z .]{0,80}", limit in 3usize..20) {
        let whole = uncached(1000)?.encode(Text::Single(&text), Truncation::Refuse)?;
        let tokenizer = uncached(limit)?;
        let right = tokenizer.encode(Text::Single(&text), Truncation::Right)?;
        let left = tokenizer.encode(Text::Single(&text), Truncation::Left)?;
        prop_assert!(inside(&whole).starts_with(inside(&right)));
        prop_assert!(inside(&whole).ends_with(inside(&left)));
        prop_assert_eq!(right.truncated, whole.ids.len() > limit);
        prop_assert_eq!(right.ids.len(), whole.ids.len().min(limit));
    }

    #[test]
    fn a_prompt_is_never_longer_than_the_sequence(prompt in "\\PC{0,30}", text in "\\PC{0,30}", limit in 3usize..12) {
        let encoding = open(limit)?.encode_prompted(&prompt, &text, Truncation::Right)?;
        prop_assert!(encoding.prompt_tokens <= encoding.ids.len());
    }
}

#[test]
fn windows_overlap_by_the_stride_and_reach_the_end() -> Outcome {
    let tokenizer = open(512)?;
    let words = ["the", "film", "was", "long", "and", "slow"];
    let text = words.join(" ");
    let options = WindowOptions::new(6, 1);
    let windows = tokenizer.windows(Text::Single(&text), &options)?;
    let characters: Vec<char> = text.chars().collect();
    let whole = tokenizer.windows(Text::Single(&text), &WindowOptions::new(512, 1))?;
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].encoding, *tokenizer.encode(Text::Single(&text), Truncation::Right)?);
    let mut covered = 0;
    for window in &windows {
        let texts = window.origins.iter().filter(|origin| !origin.special).collect::<Vec<_>>();
        assert_eq!(texts.len() + 2, window.encoding.ids.len());
        assert!(texts[0].characters.start <= covered, "a gap before {:?}", texts[0]);
        covered = texts[texts.len() - 1].characters.end;
        assert!(texts.iter().all(|origin| origin.text == Some(0) && origin.characters.end <= characters.len()));
    }
    assert!(windows.len() > 1 && covered == characters.len());

    let pair = Text::Pair("the film", &text);
    let options = WindowOptions { split: Split::Second, ..WindowOptions::new(9, 2) };
    for window in tokenizer.windows(pair, &options)? {
        assert_eq!(window.encoding.type_ids[..4], [0; 4]);
        assert!(window.encoding.truncated);
    }
    assert_refused(tokenizer.windows(pair, &WindowOptions { stride: 4, ..options }), "overlap by 4 tokens");
    let refusing = WindowOptions { truncation: Truncation::Refuse, ..WindowOptions::new(6, 0) };
    assert_refused(tokenizer.windows(Text::Single(&text), &refusing), "at most 6 are allowed");
    Ok(())
}

#[test]
fn tokens_have_ids_and_ids_have_texts() -> Outcome {
    let tokenizer = open(64)?;
    let mask = tokenizer.special_tokens().mask.clone().ok_or("a mask")?;
    assert_eq!((mask.text.as_str(), Some(mask.id)), ("[MASK]", tokenizer.token_id("[MASK]")));
    assert_eq!(tokenizer.id_to_token(mask.id).as_deref(), Some("[MASK]"));
    assert_eq!((tokenizer.token_id("no such token"), tokenizer.id_to_token(u32::MAX)), (None, None));
    let ids = tokenizer.encode(Text::Single("The film was long"), Truncation::Right)?.ids.clone();
    assert_eq!(tokenizer.decode(&ids, true)?, "the film was long");
    assert_eq!(tokenizer.decode(&ids, false)?, "[CLS] the film was long [SEP]");
    Ok(())
}
