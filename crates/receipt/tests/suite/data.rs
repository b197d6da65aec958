//! Evaluation files: what is read from each format, and what is said of files that hold something else.

use std::path::Path;

use centuple_receipt::data::{
    Class, Columns, Data, DataError, DataOptions, Example, Format, Kind, Label, Limits, Role, Span, parse, read,
};
use proptest::prelude::*;

fn options(columns: &[(Role, &str)]) -> DataOptions {
    let mut options = DataOptions::default();
    columns.iter().for_each(|(role, name)| options.columns.set(*role, *name));
    options
}

#[track_caller]
fn examples(file: &str, content: &str) -> Vec<Example> {
    let data = parse(Path::new(file), content.into(), &DataOptions::default());
    data.unwrap_or_else(|error| panic!("{error}")).examples
}

fn fixture(name: &str, options: &DataOptions) -> Result<Data, DataError> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name), options)
}

fn text(inputs: &str, pair: Option<&str>, label: Label) -> Example {
    Example::Text { inputs: inputs.to_owned(), pair: pair.map(str::to_owned), label }
}

fn id(id: u32) -> Label {
    Label::One(Class::Id(id))
}

fn name(name: &str) -> Label {
    Label::One(Class::Name(name.to_owned()))
}

fn similarity(first: &str, second: &str, score: f64) -> Example {
    Example::Similarity { first: first.to_owned(), second: second.to_owned(), score }
}

fn entities(inputs: &str, spans: &[(usize, usize, &str)]) -> Example {
    let span = |&(start, end, label): &(usize, usize, &str)| Span { start, end, label: label.to_owned() };
    Example::Entities { inputs: inputs.to_owned(), spans: spans.iter().map(span).collect() }
}

fn answer(question: &str, context: &str, answers: &[&str]) -> Example {
    let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    Example::Answer { question: question.to_owned(), context: context.to_owned(), answers }
}

#[test]
fn json_lines_of_classes() {
    let pair = r#"{"label": 0, "inputs": {"text": "b", "text_pair": "c"}, "id": [{}]}"#;
    let lines = format!("\u{feff}{{\"inputs\": \"a\", \"label\": 1}}\r\n\n{pair}");
    assert_eq!(examples("x.jsonl", &lines), [text("a", None, id(1)), text("b", Some("c"), id(0))]);
    let lines = r#"{"premise": "a", "hypothesis": "b", "label": "entailment"}"#;
    assert_eq!(examples("x.json", lines), [text("a", Some("b"), name("entailment"))]);
    let lines = r#"{"text": "a", "labels": [3, "x"]}
        {"text": "b", "labels": []}
        {"text": "c", "labels": 2.0}"#;
    let many = Label::Many(vec![Class::Id(3), Class::Name("x".to_owned())]);
    let expected = [text("a", None, many), text("b", None, Label::Many(vec![])), text("c", None, id(2))];
    assert_eq!(examples("x.ndjson", lines), expected);
    assert_eq!(examples("x.jsonl", r#"{"text": "a", "label": true}"#), [text("a", None, id(1))]);
}

#[test]
fn json_lines_of_scores() {
    let lines = r#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "score": 2}
        {"inputs": ["c", "d"], "score": 4.5}"#;
    assert_eq!(examples("x.jsonl", lines), [similarity("a", "b", 2.0), similarity("c", "d", 4.5)]);
    let lines = r#"{"sentence1": "a", "sentence2": "b", "label": 5.0}"#;
    assert_eq!(examples("x.jsonl", lines), [similarity("a", "b", 5.0)]);
    let whole = r#"{"sentence1": "a", "sentence2": "b", "label": 5}"#;
    assert_eq!(examples("x.jsonl", whole), [text("a", Some("b"), id(5))]);
}

#[test]
fn json_lines_of_entities() {
    let lines = r#"{"text": "Ana in Zürich", "entities": [{"start": 7, "end": 13, "entity_group": "LOC", "score": 1}]}
        {"text": "b", "entities": []}
        {"text": "Bo", "entities": {"start": [0], "end": [2], "label": ["PER"]}}"#;
    let expected = [entities("Ana in Zürich", &[(7, 13, "LOC")]), entities("b", &[]), entities("Bo", &[(0, 2, "PER")])];
    assert_eq!(examples("x.jsonl", lines), expected);
    let lines = r#"{"tokens": ["Zürich", "is", "in", "São", "Paulo"], "tags": ["B-A", "O", "O", "B-B", "I-B"]}"#;
    assert_eq!(examples("x.jsonl", lines), [entities("Zürich is in São Paulo", &[(0, 6, "A"), (13, 22, "B")])]);
    let numbered = r#"{"tokens": ["a", "b"], "ner_tags": [1, 0]}"#;
    let options = DataOptions { names: vec!["O".to_owned(), "B-X".to_owned()], ..DataOptions::default() };
    let data = parse(Path::new("x.jsonl"), numbered.into(), &options).expect("names are given");
    assert_eq!(data.examples, [entities("a b", &[(0, 1, "X")])]);
}

#[test]
fn json_lines_of_answers() {
    let lines = r#"{"question": "q", "context": "c", "answers": {"text": ["x", "y"], "answer_start": [0, 1]}}
        {"question": "q", "context": "c", "answers": [{"text": "x", "answer_start": 3}]}
        {"question": "q", "context": "c", "answers": ["x", "z"]}
        {"question": "q", "context": "c", "answers": "x"}"#;
    let expected: Vec<Example> =
        [&["x", "y"][..], &["x"], &["x", "z"], &["x"]].map(|answers| answer("q", "c", answers)).into();
    assert_eq!(examples("x.jsonl", lines), expected);
    let lines = r#"{"inputs": {"question": "q", "context": "c"}, "answers": ["x"]}"#;
    assert_eq!(examples("x.jsonl", lines), [answer("q", "c", &["x"])]);
}

#[test]
fn texts_without_labels() {
    let plain = |inputs: &str| Example::Plain { inputs: inputs.to_owned(), pair: None };
    assert_eq!(examples("x.txt", "a\r\n\n \nb \"c"), [plain("a"), plain("b \"c")]);
    let lines = r#"{"inputs": "a", "parameters": {"truncate": true}}"#;
    assert_eq!(examples("x.jsonl", lines), [plain("a")]);
    let labelled = "text,stars\na,5\n";
    let options = DataOptions { kind: Some(Kind::Plain), ..DataOptions::default() };
    let data = parse(Path::new("x.csv"), labelled.into(), &options).expect("labels are not needed");
    assert_eq!((data.kind, data.examples), (Kind::Plain, vec![plain("a")]));
}

#[test]
fn delimited_texts() {
    let csv = "\u{feff}idx,text,label\r\n0,\"a, \"\"b\"\"\nc\",1\r\n\r\n1,5\" disk,0\r\n";
    assert_eq!(examples("x.csv", csv), [text("a, \"b\"\nc", None, id(1)), text("5\" disk", None, id(0))]);
    let named = "text,label\na,1\nb,yes\n";
    assert_eq!(examples("x.csv", named), [text("a", None, name("1")), text("b", None, name("yes"))]);
    let many = "text,labels\na,\"[\"\"x\"\", 2]\"\nb,[x]\n";
    let expected = Label::Many(vec![Class::Name("x".to_owned()), Class::Id(2)]);
    assert_eq!(examples("x.csv", many), [text("a", None, expected), text("b", None, name("[x]"))]);
    let tsv = "score\tsentence1\tsentence2\n2.500\t\"A girl\tA \"boy\"\n5\tb\t\n";
    assert_eq!(examples("x.tsv", tsv), [similarity("\"A girl", "A \"boy\"", 2.5), similarity("b", "", 5.0)]);
    let tags = "tokens\ttags\n[\"a\", \"b\"]\t[\"O\", \"B-X\"]\n";
    assert_eq!(examples("x.tsv", tags), [entities("a b", &[(2, 3, "X")])]);
    let answers = "question,context,answer\nq,c,it is\nq,c,\"[\"\"x\"\", \"\"y\"\"]\"\n";
    assert_eq!(examples("x.csv", answers), [answer("q", "c", &["it is"]), answer("q", "c", &["x", "y"])]);
}

#[test]
fn columns_by_name() {
    let csv = "review,stars,text\na,5,b\nc,1,d\n";
    let options = options(&[(Role::Inputs, "review"), (Role::Label, "stars")]);
    let data = parse(Path::new("x.csv"), csv.into(), &options).expect("columns are named");
    assert_eq!(data.examples, [text("a", None, id(5)), text("c", None, id(1))]);
    let both = "text1,text2,label,score\na,b,x,0.5\n";
    for (role, kind) in [(Role::Label, Kind::Text), (Role::Score, Kind::Similarity)] {
        let options = self::options(&[(role, role.name())]);
        assert_eq!(parse(Path::new("x.csv"), both.into(), &options).expect("a role is named").kind, kind);
        let options = DataOptions { kind: Some(kind), ..DataOptions::default() };
        assert_eq!(parse(Path::new("x.csv"), both.into(), &options).expect("the kind is named").kind, kind);
    }
}

#[test]
fn parquet_of_the_hub() {
    let read = |name: &str| fixture(name, &DataOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let texts = ["a first text", "", "ein dritter: Zürich", "四", "the last"];
    let data = read("text.parquet");
    let expected: Vec<Example> = (0..15).map(|row| text(texts[row % 5], None, id(row as u32 % 2))).collect();
    assert_eq!(data.examples, expected);
    assert_eq!(data.names, Some(vec!["neg".to_owned(), "pos".to_owned()]));
    assert_eq!(data.sha256.len(), 64);

    let expected: Vec<Example> = (0..15)
        .map(|row| similarity(texts[row % 5], texts[4 - row % 5], f64::from((row as f64 / 3.0) as f32)))
        .collect();
    assert_eq!(read("similarity.parquet").examples, expected);

    let expected = [entities("Ana lives in São Paulo", &[(0, 3, "PER"), (13, 22, "LOC")]), entities("Hi", &[])];
    assert_eq!(read("tags.parquet").examples, expected);

    let expected = [
        answer("Where does Ana live?", "Ana lives in São Paulo.", &["São Paulo", "in São Paulo"]),
        answer("What does it do?", "It rains.", &["rain"]),
    ];
    assert_eq!(read("answers.parquet").examples, expected);

    let many = |ids: &[u32]| Label::Many(ids.iter().map(|id| Class::Id(*id)).collect());
    let expected = [text("one", None, many(&[3])), text("none", None, many(&[])), text("two", None, many(&[0, 27]))];
    let options = options(&[(Role::Label, "labels")]);
    assert_eq!(fixture("multi_label.parquet", &options).expect("a hub file").examples, expected);

    let expected = [
        entities("Ana in Zürich", &[(0, 3, "PER"), (7, 13, "LOC")]),
        entities("nobody", &[]),
        entities("Bo", &[(0, 2, "PER")]),
    ];
    assert_eq!(read("spans.parquet").examples, expected);
}

#[test]
fn what_is_wrong_with_a_parquet_file() {
    for (name, options, expected) in [
        ("nulls.parquet", options(&[]), "row 1, column `tokens`: must be a text, and is null"),
        ("null_text.parquet", options(&[]), "row 2, column `text`: must be a text, and is null"),
        ("bad_score.parquet", options(&[]), "row 2, column `score`: must be a finite number, and is the number NaN"),
        ("differences.parquet", options(&[]), "column `text`: is encoded as DELTA_BYTE_ARRAY, which is not supported"),
        ("no_rows.parquet", options(&[]), "no examples: there are no rows"),
        (
            "multi_label.parquet",
            options(&[(Role::Label, "created")]),
            "column `created` holds values of the type Timestamp",
        ),
        (
            "text.parquet",
            options(&[(Role::Inputs, "body")]),
            "no column `body` for the inputs; its columns are `text`, `label`",
        ),
    ] {
        let error = fixture(name, &options).expect_err(name).to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    let few = DataOptions { limits: Limits { rows: 14, ..Limits::default() }, ..DataOptions::default() };
    let error = fixture("text.parquet", &few).expect_err("15 rows").to_string();
    assert!(error.contains("more than 14 rows"), "{error}");
    let few = DataOptions { limits: Limits { values: 10, ..Limits::default() }, ..DataOptions::default() };
    let error = fixture("text.parquet", &few).expect_err("15 values").to_string();
    assert!(error.contains("column `text`: has more than 10 values"), "{error}");
    let short = DataOptions { limits: Limits { field_bytes: 12, ..Limits::default() }, ..DataOptions::default() };
    let error = fixture("text.parquet", &short).expect_err("20 bytes").to_string();
    assert!(error.contains("row 3, column `text`: 20 bytes, where 12 are allowed"), "{error}");
    let names = DataOptions { names: vec!["one".to_owned()], ..DataOptions::default() };
    let error = fixture("text.parquet", &names).expect_err("two classes").to_string();
    assert!(error.contains("row 2, column `label`: is 1, and there are names for 1 classes only"), "{error}");
}

#[test]
fn what_is_wrong_with_a_text_file() {
    let cases: [(&str, &str, &str); 40] = [
        ("x.xml", "", "the name does not end in .jsonl, .csv, .tsv, .parquet, .txt; say what it is with --eval-format"),
        ("x.csv", "", "no examples: the file is empty"),
        ("x.jsonl", "\n \n", "no examples: the file is empty"),
        ("x.csv", "text,label\n", "no examples: there are no rows"),
        ("x.csv", "text,label\na,1\nb\n", "`x.csv`, line 3: has 1 fields, where the header has 2"),
        ("x.csv", "text,label\r\n\r\na,1\r\nb,1,2\r\n", "line 4: has 3 fields, where the header has 2"),
        ("x.csv", "text,label\n\"a\nb\",1\nc\n", "line 4: has 1 fields"),
        ("x.csv", "label,text\n0,a\n1,\"b\n2,c\n", "line 3: a quotation mark opens a text that nothing closes"),
        ("x.tsv", "text\tlabel\na\n", "line 2: has 1 fields, where the header has 2"),
        (
            "x.csv",
            "a,b\n1,2\n",
            "no column holds the inputs (`inputs`, `text`, `sentence`, `content`); name it with \
            --eval-column inputs=NAME; its columns are `a`, `b`",
        ),
        ("x.csv", "text,stars\na,1\n", "no column is known to hold labels; name it with --eval-column label=NAME"),
        (
            "x.csv",
            "text,sentence,label\na,b,1\n",
            "several columns could be the inputs: `text`, `sentence`; choose one with \
            --eval-column inputs=NAME",
        ),
        ("x.csv", "text,text,label\na,b,1\n", "several columns could be the inputs: `text`, `text`"),
        ("x.csv", "text,label,labels\na,1,1\n", "several columns could be the label"),
        (
            "x.csv",
            "text1,text2,label,score\na,b,x,1\n",
            "could be any of `text`, `similarity`; say which with --eval-kind",
        ),
        ("x.csv", "text,label\na,\n", "line 2, column `label`: has no label"),
        ("x.csv", "text,label\na,-1\n", "line 2, column `label`: is -1, which stands for no label"),
        (
            "x.jsonl",
            r#"{"text": "a", "label": -2}"#,
            "must be a name or a whole number of 0 or more, and is the number -2",
        ),
        ("x.jsonl", r#"{"text": "a", "label": 0.5}"#, "column `label`: must be a name or a whole number"),
        (
            "x.jsonl",
            r#"{"text": "a", "label": [[1]]}"#,
            "must be a name or a whole number of 0 or more, and is a list of 1",
        ),
        ("x.jsonl", r#"{"text": "a", "label": [1, 1]}"#, "has the number 1 twice"),
        ("x.jsonl", r#"{"text": "a", "label": {}}"#, "and is an object"),
        (
            "x.tsv",
            "text1\ttext2\tscore\na\tb\tnan\n",
            "line 2, column `score`: must be a finite number, and is the number NaN",
        ),
        ("x.tsv", "text1\ttext2\tscore\na\tb\t1e999\n", "must be a finite number, and is the number inf"),
        ("x.tsv", "text1\ttext2\tscore\na\tb\tgood\n", "must be a finite number, and is the text \"good\""),
        ("x.csv", "text,score\na,1\n", "no column holds the pair"),
        ("x.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\"}", "line 2, column `label`: has no label"),
        ("x.jsonl", "{\"text\": null, \"label\": 1}", "line 1, column `text`: must be a text, and is null"),
        ("x.jsonl", "[1]", "line 1: not valid JSON: invalid type: sequence, expected an object, such as"),
        ("x.jsonl", "{\"text\": \"a\"", "line 1: not valid JSON: EOF while parsing an object at byte 12 of the line"),
        ("x.jsonl", "{\"text\": \"a\", \"label\": NaN}", "line 1: not valid JSON: expected value at byte 24"),
        ("x.jsonl", "{\"text\": \"a\"} x", "line 1: not valid JSON: trailing characters at byte 15"),
        ("x.jsonl", r#"{"text": "a", "text": "b"}"#, "the key `text` comes twice"),
        (
            "x.jsonl",
            r#"{"inputs": {"text": "a", "pair": "b"}, "label": 1}"#,
            "column `inputs`: has the unknown keys `pair`",
        ),
        (
            "x.jsonl",
            r#"{"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}, "score": 1}"#,
            "give each pair a row",
        ),
        ("x.jsonl", r#"{"inputs": {"text": "a"}, "score": 1}"#, "column `inputs`: similarity needs two texts"),
        (
            "x.jsonl",
            r#"{"tokens": ["a"], "tags": [1]}"#,
            "column `tags`: holds numbers of classes, such as 1, without names; \
            give them in order with --eval-names",
        ),
        ("x.jsonl", r#"{"tokens": ["a", "b"], "tags": ["O"]}"#, "column `tags`: has 1 tags for 2 words"),
        ("x.jsonl", r#"{"tokens": ["a"], "tags": ["X-A"]}"#, "`X-A` is no tag"),
        (
            "x.jsonl",
            r#"{"text": "é", "entities": [{"start": 0, "end": 2, "label": "A"}]}"#,
            "outside of the text's 1 characters",
        ),
    ];
    for (file, content, expected) in cases {
        let error = parse(Path::new(file), content.into(), &DataOptions::default()).expect_err(content).to_string();
        assert!(error.starts_with(&format!("`{file}`")) && error.contains(expected), "{content}: {error}");
    }
    let answers = r#"{"question": "q", "context": "c", "answers": {"text": []}}"#;
    let error =
        parse(Path::new("x.jsonl"), answers.into(), &DataOptions::default()).expect_err("no answer").to_string();
    assert!(error.contains("column `answers`: has no answer"), "{error}");
}

#[test]
fn encodings_and_limits() {
    for file in ["x.jsonl", "x.csv", "x.tsv", "x.txt"] {
        let content = b"text,label\n\xff\xfe,1\n".to_vec();
        let error = parse(Path::new(file), content, &DataOptions::default()).expect_err("not UTF-8").to_string();
        assert!(error.contains("is not UTF-8; save the file in that encoding") || file == "x.jsonl", "{error}");
    }
    let limits = Limits { rows: 2, field_bytes: 20, file_bytes: 100, values: 100 };
    let options = DataOptions { limits, ..DataOptions::default() };
    for (file, content, expected) in [
        ("x.txt", "a\nb\nc\n".to_owned(), "more than 2 rows, which is the limit"),
        ("x.csv", "text,label\na,1\nb,1\nc,1\n".to_owned(), "more than 2 rows"),
        (
            "x.csv",
            format!("text,label\n{},1\n", "a".repeat(21)),
            "line 2, column `text`: 21 bytes, where 20 are allowed",
        ),
        ("x.jsonl", format!("{{\"text\": \"{}\"}}", "a".repeat(20)), "line 1: 32 bytes, where 20 are allowed"),
        ("x.txt", "a\n".repeat(60), "has more than 100 bytes, which is the limit"),
    ] {
        let error = parse(Path::new(file), content.into(), &options).expect_err(file).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.txt");
    std::fs::write(&path, "a\n".repeat(60)).expect("a file");
    assert!(matches!(read(&path, &options), Err(DataError::TooLarge { limit: 100, .. })));
    let gone = read(&folder.path().join("y.txt"), &options).expect_err("no file").to_string();
    assert!(gone.starts_with("cannot read `"), "{gone}");
    let forced = DataOptions { format: Some(Format::Txt), ..DataOptions::default() };
    assert_eq!(parse(Path::new("x.csv"), "a,b".into(), &forced).expect("a text").kind, Kind::Plain);
}

/// Options of every kind, with columns called by names that random bytes may have.
fn any_options(format: Format, kind: usize) -> DataOptions {
    let columns = Columns { inputs: (kind > 6).then(|| "a".to_owned()), ..Columns::default() };
    let limits = Limits { rows: 1000, field_bytes: 1000, file_bytes: 100_000, values: 1000 };
    DataOptions { format: Some(format), kind: Kind::ALL.get(kind).copied(), columns, limits, names: Vec::new() }
}

/// An outcome must be sound: examples of one kind, or an error that says something.
fn check(outcome: Result<Data, DataError>) {
    match outcome {
        Ok(data) => {
            assert!(!data.examples.is_empty());
            assert!(data.examples.iter().all(|example| example.kind() == data.kind));
        }
        Err(error) => assert!(error.to_string().starts_with("`x`"), "{error}"),
    }
}

/// Files that are read, to be damaged.
fn sound_files() -> Vec<(Format, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let names = ["text", "similarity", "tags", "answers", "multi_label", "spans", "nulls"];
    let parquet = names.map(|name| {
        (Format::Parquet, std::fs::read(folder.join(name).with_extension("parquet")).expect("the fixtures are there"))
    });
    let texts = [
        (Format::Jsonl, r#"{"inputs": {"text": "a", "text_pair": "b"}, "label": [1, "x"]}"#),
        (Format::Jsonl, r#"{"text": "Bo é", "entities": [{"start": 0, "end": 2, "label": "A"}]}"#),
        (Format::Jsonl, r#"{"tokens": ["a", "b"], "tags": ["B-X", "O"]}"#),
        (Format::Jsonl, r#"{"question": "q", "context": "c", "answers": [{"text": "x"}]}"#),
        (Format::Csv, "text,label\n\"a\"\"\n\",[1]\n"),
        (Format::Tsv, "score\tsentence1\tsentence2\n2.5\ta\tb\n"),
        (Format::Txt, "a\nb\n"),
    ];
    let texts = texts.map(|(format, text)| (format, text.as_bytes().to_vec()));
    parquet.into_iter().chain(texts).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..8) {
        for format in Format::ALL {
            check(parse(Path::new("x"), bytes.clone(), &any_options(format, kind)));
        }
    }

    #[test]
    fn random_texts_are_refused_or_read(
        text in "(text|label|[a-c]|[,\t\n\"{}:\\[\\] 0-9é\r]){0,40}", kind in 0usize..8
    ) {
        for format in Format::ALL {
            check(parse(Path::new("x"), text.clone().into_bytes(), &any_options(format, kind)));
        }
    }

    #[test]
    fn damaged_files_are_refused_or_read(
        file in 0usize..14,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        kind in 0usize..8,
    ) {
        let (format, mut bytes) = sound_files().swap_remove(file);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            let place = cut.index(bytes.len());
            bytes.remove(place);
        }
        check(parse(Path::new("x"), bytes, &any_options(format, kind)));
    }
}
