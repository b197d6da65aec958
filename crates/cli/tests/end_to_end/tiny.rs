//! Tiny models in folders of their own, and what PyTorch answers for them.

use std::fs;
use std::path::{Path, PathBuf};

use centuple_testkit::{Golden, GoldenInput, distance};
use serde_json::{Value, json};
use tempfile::TempDir;

/// PyTorch's own f32 is 8e-6 from f64 on these models, whose values go up to 9.
pub(crate) const TOLERANCE: f32 = 2e-5;

/// A case of the golden values in a folder of its name.
pub(crate) struct Tiny {
    folder: TempDir,
    name: String,
    golden: Golden,
}

impl Tiny {
    /// Assembles the case of a name.
    pub(crate) fn new(name: &str) -> Tiny {
        let folder = TempDir::new().expect("a temporary folder");
        let golden = Golden::open().expect("the fixtures are there");
        let case = golden.case(name).unwrap_or_else(|| panic!("no case `{name}`"));
        case.assemble(&folder.path().join(name)).expect("the fixtures are there");
        Tiny { folder, name: name.to_owned(), golden }
    }

    /// The model folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// The model folder as an argument.
    pub(crate) fn argument(&self) -> &str {
        self.folder.path().to_str().map(|_| ()).expect("temporary paths are UTF-8");
        Box::leak(self.path().to_string_lossy().into_owned().into_boxed_str())
    }

    /// A place beside the model folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The inputs that are one text, with the row of `kind` that is expected for each.
    pub(crate) fn texts(&self, kind: &str) -> Vec<(&GoldenInput, &str, Vec<f32>)> {
        let (values, width) = self.golden.output(&self.name, kind).unwrap_or_else(|| panic!("no {kind}"));
        let case = self.golden.case(&self.name).expect("it was there before");
        let rows = case.inputs.iter().zip(values.chunks(width));
        let single = rows.filter(|(input, _)| input.pair.is_none() && input.prompt.is_none());
        single.filter_map(|(input, row)| Some((input, input.text.as_deref()?, row.to_vec()))).collect()
    }
}
