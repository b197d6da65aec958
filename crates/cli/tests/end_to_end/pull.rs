//! `centuple pull`, and models by name.

use std::fs;

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

#[test]
fn pull_finds_folders_and_says_what_is_missing() {
    let model = Tiny::new("bert-tiny");
    let finished = finish(centuple("pull").arg(model.path()), b"");
    assert_eq!((finished.code, finished.text().trim_end()), (Some(0), model.path().to_str().expect("UTF-8")));
    let finished = finish(centuple("pull").arg("no-organisation/no-model@v1"), b"");
    let message = finished.failure(1);
    assert!(message.contains("no-organisation/no-model@v1") && message.contains("HF_HUB_OFFLINE"), "{message}");
    let finished = finish(centuple("pull").arg("neither folder nor id"), b"");
    assert!(finished.failure(1).contains("`neither folder nor id`"));
    let finished = finish(&mut centuple("pull"), b"");
    assert!(finished.failure(1).contains("sentence-transformers/all-MiniLM-L6-v2"));
}

#[test]
fn models_are_found_in_the_hub_cache() {
    let model = Tiny::new("sentence-mean");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repository = model.beside("home/hub/models--some--model");
    for folder in ["snapshots", "refs"] {
        fs::create_dir_all(repository.join(folder)).expect("temporary folders can be written");
    }
    fs::rename(model.path(), repository.join("snapshots").join(commit)).expect("in one file system");
    fs::write(repository.join("refs/main"), commit).expect("temporary folders can be written");
    let finished = finish(centuple("pull").arg("some/model").env("HF_HOME", model.beside("home")), b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.text().trim_end().ends_with(commit));
    let finished = finish(centuple("inspect").arg("some/model").env("HF_HOME", model.beside("home")), b"");
    assert!(finished.text().contains("some/model"), "{finished:?}");
}
