//! Tiny models in folders of their own, and what PyTorch answers for them.

use std::fs;
use std::path::PathBuf;

use centuple_testkit::{Golden, GoldenInput, distance, pipeline_cases};
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

/// A text with its tokens and the numbers that are expected for it.
pub(crate) struct Known<'a> {
    pub(crate) text: &'a str,
    pub(crate) input: &'a GoldenInput,
    pub(crate) expected: Vec<f32>,
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

    /// Assembles a case of the tasks; it has asks and no `known` inputs.
    pub(crate) fn of_pipeline(name: &str) -> Tiny {
        let folder = TempDir::new().expect("a temporary folder");
        let cases = pipeline_cases().expect("the fixtures are there");
        let case = cases.into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case `{name}`"));
        case.assemble(&folder.path().join(name)).expect("the fixtures are there");
        Tiny { folder, name: name.to_owned(), golden: Golden::open().expect("the fixtures are there") }
    }

    /// The model folder.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// A place beside the model folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes a JSON file of the model folder.
    pub(crate) fn edit(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path().join(file);
        let mut json = serde_json::from_slice(&fs::read(&path).expect("the file is there")).expect("it is JSON");
        edit(&mut json);
        self.write(file, json.to_string());
    }

    /// Writes a file of the model folder.
    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), content).expect("temporary folders can be written");
    }

    /// The inputs that are two texts, with the row of `scores` for each.
    pub(crate) fn known_pairs(&self) -> Vec<(String, String, Vec<f32>)> {
        let (values, width) = self.golden.output(&self.name, "scores").unwrap_or_else(|| panic!("no scores"));
        let case = self.golden.case(&self.name).expect("it was there before");
        let rows = case.inputs.iter().zip(values.chunks(width));
        rows.filter_map(|(input, row)| Some((input.text.clone()?, input.pair.clone()?, row.to_vec()))).collect()
    }

    /// The inputs that are one text, with the row of `embeddings` or `scores` for each.
    pub(crate) fn known(&self, kind: &str) -> Vec<Known<'_>> {
        let (values, width) = self.golden.output(&self.name, kind).unwrap_or_else(|| panic!("no {kind}"));
        let case = self.golden.case(&self.name).expect("it was there before");
        let single = |input: &&GoldenInput| input.pair.is_none() && input.prompt.is_none();
        let rows = case.inputs.iter().zip(values.chunks(width)).filter(|(input, _)| single(input));
        rows.filter_map(|(input, row)| Some(Known { text: input.text.as_deref()?, input, expected: row.to_vec() }))
            .collect()
    }
}

impl Known<'_> {
    /// The body that asks for it.
    pub(crate) fn body(&self) -> Value {
        json!({"inputs": self.text})
    }

    /// Whether these are the expected numbers.
    pub(crate) fn assert_is(&self, found: &[f32]) {
        let distance = distance(found, &self.expected);
        assert!(distance <= TOLERANCE, "{:?}: off by {distance:e}", self.text);
    }
}
