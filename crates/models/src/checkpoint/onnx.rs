//! Folders whose weights are an ONNX file, and such files themselves.

use std::fs;
use std::path::{Path, PathBuf};

use super::CheckpointError;
use super::weights::Format;

/// The name that a folder's model has where it has several.
const MODEL: &str = "model.onnx";
/// Where Optimum and the hub's own export put the files.
const SUBFOLDER: &str = "onnx";
/// What a folder of configuration and tokenizer has one of.
const SIDE_FILES: [&str; 4] = ["config.json", "tokenizer.json", "vocab.txt", "modules.json"];

/// An ONNX file and the folder that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxFile {
    /// The file.
    pub path: PathBuf,
    /// Where configuration, tokenizer and modules lie: beside the file, or one folder up.
    pub folder: PathBuf,
}

impl OnnxFile {
    /// The model at `place`, which is an `.onnx` file or a folder without other weights; `None` where it is neither.
    ///
    /// # Errors
    /// A folder has several such files, none of which is called `model.onnx`.
    pub fn find(place: &Path) -> Result<Option<OnnxFile>, CheckpointError> {
        if is_onnx(place) && place.is_file() {
            return Ok(Some(OnnxFile { path: place.to_owned(), folder: side_folder(place) }));
        }
        let at = |path: PathBuf| Ok(Some(OnnxFile { path, folder: place.to_owned() }));
        let files = files_of(place);
        let [first, others @ ..] = files.as_slice() else { return Ok(None) };
        if has_other_weights(place) {
            return Ok(None);
        }
        if let Some(model) = files.iter().find(|path| path.file_name().is_some_and(|name| name == MODEL)) {
            return at(model.clone());
        }
        if others.is_empty() {
            return at(first.clone());
        }
        let names: Vec<String> =
            files.iter().map(|path| path.strip_prefix(place).unwrap_or(path).display().to_string()).collect();
        let reason = format!("it has several models, none of which is {MODEL}; name one of {}", names.join(", "));
        Err(CheckpointError::config(place, reason))
    }
}

/// Whether a folder has an ONNX file and no other weights, without deciding which one.
pub fn has_only_onnx(folder: &Path) -> bool {
    !files_of(folder).is_empty() && !has_other_weights(folder)
}

/// Whether a path is called like an ONNX file.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// The ONNX files of a folder, then those of its subfolder for them, each in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let within = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| is_onnx(path) && path.is_file()).collect();
        files.sort();
        files
    };
    [within(folder.to_owned()), within(folder.join(SUBFOLDER))].concat()
}

pub(super) fn has_other_weights(folder: &Path) -> bool {
    let names = |format: Format| [format.single(), format.index()];
    Format::ALL.into_iter().flat_map(names).any(|name| folder.join(name).exists())
}

fn side_folder(file: &Path) -> PathBuf {
    let own = match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let has_side_files = |folder: &Path| SIDE_FILES.iter().any(|name| folder.join(name).is_file());
    let above = own.join("..");
    if !has_side_files(&own) && has_side_files(&above) {
        return above.canonicalize().unwrap_or(above);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn folder(files: &[&str]) -> Result<tempfile::TempDir, std::io::Error> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join(SUBFOLDER))?;
        files.iter().try_for_each(|file| fs::write(folder.path().join(file), b""))?;
        Ok(folder)
    }

    #[test]
    fn a_folder_has_one_model() -> Tested {
        for (files, chosen) in [
            (&["model.onnx", "onnx/model.onnx", "other.onnx"][..], "model.onnx"),
            (&["onnx/model.onnx", "onnx/model_quantized.onnx"], "onnx/model.onnx"),
            (&["onnx/model_q4.onnx", "config.json"], "onnx/model_q4.onnx"),
        ] {
            let folder = folder(files)?;
            let found = OnnxFile::find(folder.path())?.ok_or("no file")?;
            assert_eq!(found, OnnxFile { path: folder.path().join(chosen), folder: folder.path().to_owned() });
            assert!(has_only_onnx(folder.path()));
        }
        for files in [&["config.json"][..], &["onnx/model.onnx", "model.safetensors"]] {
            let folder = folder(files)?;
            assert!(OnnxFile::find(folder.path())?.is_none() && !has_only_onnx(folder.path()));
        }
        let several = folder(&["onnx/a.onnx", "onnx/b.onnx"])?;
        let error = OnnxFile::find(several.path()).map(drop).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("onnx/a.onnx, onnx/b.onnx")));
        Ok(())
    }

    #[test]
    fn a_file_belongs_to_its_folder_or_the_one_above() -> Tested {
        let folder = folder(&["onnx/model.onnx", "tokenizer.json"])?;
        let file = folder.path().join("onnx/model.onnx");
        let found = OnnxFile::find(&file)?.ok_or("no file")?;
        assert_eq!(found.folder, folder.path().canonicalize()?);
        fs::write(folder.path().join("onnx/config.json"), b"{}")?;
        assert_eq!(OnnxFile::find(&file)?.ok_or("no file")?.folder, folder.path().join("onnx"));
        Ok(())
    }
}
