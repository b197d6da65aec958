//! Folders of every tokenizer class against what transformers makes of them (`scripts/goldens/make.py tokenizers`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use centuple_text::{SpecialToken, Split, Text, TextOptions, Tokenizer, Truncation, Window, WindowOptions};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
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

#[derive(Deserialize)]
struct Texts {
    single: Vec<String>,
    pairs: Vec<(String, String)>,
    windows: Vec<Request>,
}

/// A text in windows.
#[derive(Deserialize)]
struct Request {
    first: String,
    second: Option<String>,
    max_tokens: usize,
    stride: usize,
    split: String,
    side: Option<String>,
}

/// What transformers answers for a case.
#[derive(Deserialize)]
struct Answers {
    vocabulary_size: usize,
    special: BTreeMap<String, Option<(String, u32)>>,
    single: Vec<Encoded>,
    pairs: Vec<Encoded>,
    windows: Vec<Vec<Tokens>>,
    decoded: Vec<Decoded>,
}

#[derive(Deserialize)]
struct Encoded {
    #[serde(flatten)]
    tokens: Tokens,
    text: String,
    plain: String,
}

/// A list of tokens, field by field; -1 is none.
#[derive(Debug, Deserialize, PartialEq)]
struct Tokens {
    ids: Vec<u32>,
    #[serde(default)]
    type_ids: Vec<u32>,
    texts: Vec<i64>,
    words: Vec<i64>,
    starts: Vec<usize>,
    ends: Vec<usize>,
    /// The tokens that go on with a word.
    continued: Vec<usize>,
}

#[derive(Deserialize)]
struct Decoded {
    ids: Vec<u32>,
    text: String,
    plain: String,
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

fn tokens(window: &Window) -> Tokens {
    let origins = &window.origins;
    let number = |value: Option<i64>| value.unwrap_or(-1);
    let type_ids = window.encoding.type_ids.clone();
    Tokens {
        ids: window.encoding.ids.clone(),
        type_ids: if type_ids.iter().all(|id| *id == 0) { Vec::new() } else { type_ids },
        texts: origins.iter().map(|origin| number(origin.text.map(|text| text as i64))).collect(),
        words: origins.iter().map(|origin| number(origin.word.map(i64::from))).collect(),
        starts: origins.iter().map(|origin| origin.characters.start).collect(),
        ends: origins.iter().map(|origin| origin.characters.end).collect(),
        continued: (0..origins.len()).filter(|index| origins[*index].continues_word).collect(),
    }
}

/// What differs in a case.
struct Differences<'a> {
    case: &'a str,
    found: Vec<String>,
}

impl Differences<'_> {
    fn compare<T: PartialEq + Debug>(&mut self, what: impl Debug, ours: &T, theirs: &T) {
        if ours != theirs {
            self.found.push(format!("{} at {what:?}:\n  ours   {ours:?}\n  theirs {theirs:?}", self.case));
        }
    }

    fn encoding(&mut self, tokenizer: &Tokenizer, text: Text<'_>, theirs: &Encoded) -> Outcome<()> {
        let windows = match tokenizer.windows(text, &WindowOptions::new(usize::MAX, 0)) {
            Ok(windows) => windows,
            // Without special tokens, an empty text has none.
            Err(error) => {
                self.compare((text, error.to_string()), &Vec::new(), &theirs.tokens.ids);
                return Ok(());
            }
        };
        self.compare(text, &tokens(&windows[0]), &theirs.tokens);
        let encoding = tokenizer.encode(text, Truncation::Refuse)?;
        self.compare((text, "encode"), &encoding.ids, &theirs.tokens.ids);
        self.decoded(tokenizer, &theirs.tokens.ids, (&theirs.text, &theirs.plain))
    }

    fn decoded(&mut self, tokenizer: &Tokenizer, ids: &[u32], theirs: (&String, &String)) -> Outcome<()> {
        self.compare((ids, "decode"), &tokenizer.decode(ids, false)?, theirs.0);
        self.compare((ids, "decode without special tokens"), &tokenizer.decode(ids, true)?, theirs.1);
        Ok(())
    }
}

/// How a case's tokenizer differs from transformers'.
fn differences(case: &Case, texts: &Texts, theirs: &Answers) -> Outcome<Vec<String>> {
    let mut differences = Differences { case: &case.name, found: Vec::new() };
    let folder = assemble(case)?;
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(1 << 20) };
    let tokenizer = Tokenizer::open(folder.path(), &options).map_err(|error| format!("{}: {error}", case.name))?;
    differences.compare("vocabulary size", &tokenizer.vocabulary_size(), &theirs.vocabulary_size);
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
        let ours = ours.as_ref().map(|SpecialToken { text, id }| (text.clone(), *id));
        differences.compare(role, &ours, &theirs.special[role]);
    }
    for (text, theirs) in texts.single.iter().zip(&theirs.single) {
        differences.encoding(&tokenizer, Text::Single(text), theirs)?;
    }
    for ((first, second), theirs) in texts.pairs.iter().zip(&theirs.pairs) {
        differences.encoding(&tokenizer, Text::Pair(first, second), theirs)?;
    }
    for (request, theirs) in texts.windows.iter().zip(&theirs.windows) {
        let options = WindowOptions {
            split: if request.split == "second" { Split::Second } else { Split::First },
            truncation: if request.side.is_some() { Truncation::Left } else { Truncation::Right },
            ..WindowOptions::new(request.max_tokens, request.stride)
        };
        let text = match &request.second {
            Some(second) => Text::Pair(&request.first, second),
            None => Text::Single(&request.first),
        };
        let windows = tokenizer.windows(text, &options)?;
        differences.compare(&options, &windows.iter().map(tokens).collect(), theirs);
    }
    for decoded in &theirs.decoded {
        differences.decoded(&tokenizer, &decoded.ids, (&decoded.text, &decoded.plain))?;
    }
    Ok(differences.found)
}

#[test]
fn every_class_is_what_transformers_makes_of_it() -> Outcome<()> {
    let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(fixtures().join("cases.json"))?)?;
    let texts: Texts = serde_json::from_str(&fs::read_to_string(fixtures().join("texts.json"))?)?;
    let answers = GzDecoder::new(File::open(fixtures().join("answers.json.gz"))?);
    let answers: BTreeMap<String, Answers> = serde_json::from_reader(answers)?;
    assert_eq!(cases.len(), answers.len());
    let mut found = Vec::new();
    for case in &cases {
        match differences(case, &texts, &answers[&case.name]) {
            Ok(differences) => {
                eprintln!("{}: {} differences", case.name, differences.len());
                found.extend(differences.into_iter().take(3));
            }
            Err(error) => found.push(error.to_string()),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
