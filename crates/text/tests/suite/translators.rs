//! Tokenizers of models that translate against what transformers makes of them (`scripts/goldens/make.py tokenizers`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use centuple_text::{Text, TextError, TextOptions, Tokenizer, Truncation, WindowOptions};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A folder to be made.
#[derive(Deserialize)]
struct Case {
    name: String,
    /// File in the folder → file of the fixtures.
    files: BTreeMap<String, String>,
    /// File in the folder → JSON to write there.
    write: BTreeMap<String, Value>,
}

/// What transformers answers for a case.
#[derive(Deserialize)]
struct Answers {
    special: BTreeMap<String, Option<(String, u32)>>,
    texts: Vec<Vec<u32>>,
    written: Vec<Written>,
    languages: BTreeMap<String, Language>,
}

/// Ids as texts.
#[derive(Deserialize)]
struct Written {
    ids: Vec<u32>,
    whole: String,
    plain: String,
    bare: String,
}

/// Texts in a language.
#[derive(Deserialize)]
struct Language {
    token: u32,
    texts: Vec<Vec<u32>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classes")
}

fn assemble(case: &Case) -> Outcome<TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, file) in &case.files {
        fs::copy(fixtures().join("files").join(file), folder.path().join(name))?;
    }
    for (name, value) in &case.write {
        fs::write(folder.path().join(name), value.to_string())?;
    }
    Ok(folder)
}

fn cases() -> Outcome<Vec<Case>> {
    Ok(serde_json::from_str(&fs::read_to_string(fixtures().join("translators/cases.json"))?)?)
}

fn open(name: &str) -> Outcome<(TempDir, Tokenizer)> {
    let case = cases()?.into_iter().find(|case| case.name == name).ok_or("no such case")?;
    let folder = assemble(&case)?;
    let tokenizer = Tokenizer::open(folder.path(), &TextOptions::new(1 << 20))?;
    Ok((folder, tokenizer))
}

/// How a case's tokenizer differs from transformers'.
fn differences(case: &Case, texts: &[String], theirs: &Answers) -> Outcome<Vec<String>> {
    let folder = assemble(case)?;
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(1 << 20) };
    let tokenizer = Tokenizer::open(folder.path(), &options)?;
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: &dyn ToString, theirs: &dyn ToString| {
        let (ours, theirs) = (ours.to_string(), theirs.to_string());
        if ours != theirs {
            found.push(format!("{}, {what}:\n  ours   {ours}\n  theirs {theirs}", case.name));
        }
    };
    let special = tokenizer.special_tokens();
    let roles = [
        ("bos", &special.bos),
        ("eos", &special.eos),
        ("unk", &special.unk),
        ("sep", &special.sep),
        ("pad", &special.pad),
        ("cls", &special.cls),
        ("mask", &special.mask),
    ];
    for (role, ours) in roles {
        let ours = ours.as_ref().map(|token| (token.text.clone(), token.id));
        compare(role, &json!(ours), &json!(theirs.special[role]));
    }
    for (text, theirs) in texts.iter().zip(&theirs.texts) {
        let ours = tokenizer.encode(Text::Single(text), Truncation::Refuse)?;
        compare(&format!("{text:?}"), &json!(ours.ids), &json!(theirs));
    }
    for Written { ids, whole, plain, bare } in &theirs.written {
        compare(&format!("{ids:?}"), &json!(tokenizer.decode(ids, false)?), &json!(whole));
        compare(&format!("{ids:?} without special tokens"), &json!(tokenizer.decode(ids, true)?), &json!(plain));
        compare(&format!("{ids:?} as it is"), &json!(tokenizer.decode_as(ids, true, false)?), &json!(bare));
    }
    for (code, theirs) in &theirs.languages {
        compare(code, &tokenizer.language_token(code)?, &theirs.token);
        for (text, theirs) in texts.iter().zip(&theirs.texts) {
            let ours = tokenizer.encode_in(code, text, Truncation::Refuse)?;
            compare(&format!("{text:?} in {code}"), &json!(ours.ids), &json!(theirs));
        }
    }
    Ok(found)
}

#[test]
fn translators_are_what_transformers_makes_of_them() -> Outcome<()> {
    let texts: Vec<String> = serde_json::from_str(&fs::read_to_string(fixtures().join("translators/texts.json"))?)?;
    let answers = GzDecoder::new(File::open(fixtures().join("translators/answers.json.gz"))?);
    let answers: BTreeMap<String, Answers> = serde_json::from_reader(answers)?;
    let mut found = Vec::new();
    for case in &cases()? {
        match differences(case, &texts, &answers[&case.name]) {
            Ok(differences) => {
                eprintln!("{}: {} differences", case.name, differences.len());
                found.extend(differences.into_iter().take(4));
            }
            Err(error) => found.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn languages_that_there_are_not_are_errors() -> Outcome<()> {
    for (case, language, example) in [
        ("mbart", "xx_XX", Some("de_DE")),
        ("mbart", "</s>", Some("de_DE")),
        ("mbart", "walks", Some("de_DE")),
        ("m2m-listed", "xx", Some("fr")),
        ("marian", "eng", Some("fra")),
    ] {
        let (_folder, tokenizer) = open(case)?;
        let error = tokenizer.language_token(language).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(&format!("knows no language `{language}`")), "{case}: {error}");
        assert!(example.is_none_or(|example| error.contains(&format!("`{example}`"))), "{case}: {error}");
    }
    let (_folder, tokenizer) = open("marian")?;
    assert!(tokenizer.language_token("fra").is_ok());
    Ok(())
}

#[test]
fn pieces_with_ids_of_their_own_have_no_offsets() -> Outcome<()> {
    let (_folder, tokenizer) = open("marian")?;
    let windows = tokenizer.windows(Text::Single("walks"), &WindowOptions::new(8, 0));
    assert!(matches!(windows, Err(TextError::NoOffsets)), "{windows:?}");
    Ok(())
}

#[test]
fn broken_models_are_errors() -> Outcome<()> {
    for case in ["marian", "m2m"] {
        let (folder, _) = open(case)?;
        for file in ["source.spm", "sentencepiece.bpe.model", "vocab.json"] {
            let path = folder.path().join(file);
            let Ok(whole) = fs::read(&path) else { continue };
            for length in (0..whole.len()).step_by(97) {
                fs::write(&path, &whole[..length])?;
                // A model may end after a whole piece; what is left of it then encodes.
                if let Ok(tokenizer) = Tokenizer::open(folder.path(), &TextOptions::new(64)) {
                    tokenizer.encode(Text::Single("Who walks? \u{e9}e\u{301}"), Truncation::Right)?;
                }
            }
            fs::write(&path, whole)?;
        }
    }
    Ok(())
}
