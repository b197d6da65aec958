//! Configurations without a `model_type`, as transformers wrote them before 2.9.

use std::error::Error;
use std::fs;
use std::path::Path;

use centuple_models::{Model, ModelError, Purpose, load};
use centuple_testkit::Golden;
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// The folder of a case, with a changed configuration.
fn folder(case: &str, change: impl Fn(&mut serde_json::Map<String, Value>)) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    Golden::open()?.case(case).ok_or("a known case")?.assemble(folder.path())?;
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    change(config.as_object_mut().ok_or("an object")?);
    fs::write(path, config.to_string())?;
    Ok(folder)
}

fn read(folder: &Path) -> Result<Model, ModelError> {
    load(folder, Purpose::Own)
}

#[test]
fn the_class_or_the_tensors_tell_the_family() -> Outcome {
    // Tensors named as those of `BertModel` itself, and with `bert.` in front of them.
    for case in ["bert-tiny", "bert-tiny-f16"] {
        let expected = read(folder(case, |_| {})?.path())?;
        let by_class = read(folder(case, |config| drop(config.remove("model_type")))?.path())?;
        assert_eq!(by_class.description, expected.description, "{case}");
        let by_tensors = folder(case, |config| {
            config.remove("model_type");
            config.remove("architectures");
        })?;
        let by_tensors = read(by_tensors.path())?;
        assert_eq!(by_tensors.description.architecture, "BertModel", "{case}");
        assert_eq!(by_tensors.description.layers, expected.description.layers, "{case}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_told_is_refused() -> Outcome {
    let without = |class: &'static str| {
        folder("bert-tiny", move |config| {
            config.remove("model_type");
            config.insert("architectures".to_owned(), json!([class]));
        })
    };
    for class in ["BertfooModel", "FooForMaskedLM", "Bert"] {
        let error = read(without(class)?.path()).expect_err("must be refused").to_string();
        assert!(error.contains("it has no `model_type`"), "{error}");
    }
    // The tensors' names don't overrule a model type that is there.
    let other = folder("bert-tiny", |config| drop(config.insert("model_type".to_owned(), json!("foo"))))?;
    let error = read(other.path()).expect_err("must be refused").to_string();
    assert!(error.contains("\"foo\" is not supported"), "{error}");
    Ok(())
}
