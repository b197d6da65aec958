//! `centuple eval`: a gate on what precisions lose.

use std::fs;
use std::path::PathBuf;

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

/// Pairs of texts with a score.
fn pairs(model: &Tiny) -> PathBuf {
    let texts =
        ["a happy person", "the cat sat on the mat", "it is raining", "one two three", "nobody knows", "good day"];
    let line = |(index, texts): (usize, &[&str])| format!("{}\t{}\t{}\n", index * 2 % 5, texts[0], texts[1]);
    let lines: String = texts.windows(2).enumerate().map(line).collect();
    let file = model.beside("pairs.tsv");
    fs::write(&file, format!("score\tsentence1\tsentence2\n{lines}")).expect("a temporary folder");
    file
}

#[test]
fn more_than_may_be_lost_is_a_failure() {
    let model = Tiny::new("sentence-normalize");
    let file = pairs(&model);
    let eval = |precisions: &str, most: &str| {
        let arguments = ["--precision", precisions, "--max-drop", most];
        finish(centuple("eval").arg(model.path()).arg(&file).args(arguments), b"")
    };
    let kept = eval("f32,int8", "200");
    assert_eq!((kept.code, kept.stderr.as_str()), (Some(0), ""));
    assert!(kept.text().contains("int8"), "{kept:?}");
    let alone = eval("int8", "200");
    assert!(alone.failure(1).contains("compares with f32"), "{alone:?}");
    assert!(alone.text().contains("int8"), "what was found is printed all the same");
    assert!(eval("f32", "200").failure(1).contains("nothing to compare"));
}

#[test]
fn what_is_lost_is_told() {
    let model = Tiny::new("sentence-normalize");
    let file = model.beside("texts.txt");
    fs::write(&file, "a happy person\nthe cat sat on the mat\nit is raining\n").expect("a temporary folder");
    let arguments = ["--precision", "f32,int8", "--max-drop", "0"];
    let finished = finish(centuple("eval").arg(model.path()).arg(&file).args(arguments), b"");
    let error = finished.failure(1);
    assert!(error.contains("int8 loses 0.") && error.contains("mean cosine"), "{error}");
}
