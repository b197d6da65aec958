//! Downloading a model's files from the hub.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, RepoTypeModel};
use indicatif::{ProgressBar, ProgressStyle};

use super::cache::{is_commit, without_weights};
use super::id::ModelId;
use crate::checkpoint::onnx::has_only_onnx;
use crate::checkpoint::weights::Format;

/// A hub that does not take or answer the first request in this time is given up.
const FIRST_TIMEOUT: Duration = Duration::from_secs(4);
/// A download that stands still for this long has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request of a download that failed for a passing reason is repeated.
const RETRIES: usize = 2;

/// The files that are needed, as globs over paths in the repository (`*` matches slashes too).
const FILES: [&str; 23] = [
    "config.json",
    "generation_config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_*_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    // Folders of sentence-transformers modules.
    "[0-9]*_*/*.json",
    "[0-9]*_*/vocab.txt",
    "[0-9]*_*/merges.txt",
    "[0-9]*_*/model.safetensors",
    "[0-9]*_*/model-*.safetensors",
    "LICENSE*",
];

/// ONNX files with their external data, in the order in which they are looked for.
const ONNX_FILES: [&str; 3] = ["model.onnx*", "onnx/model.onnx*", "*.onnx*"];

/// Paths that no repository has, but that a hostile hub could list to write outside of the folder.
const OUTSIDE: &str = "*..*";

/// A model's repository on the hub.
pub(super) struct Repository {
    /// For the first request, with little patience.
    impatient: HFRepositorySync<RepoTypeModel>,
    /// For all others.
    patient: HFRepositorySync<RepoTypeModel>,
}

impl Repository {
    /// Prepares to talk to `endpoint`, or to the hub's own address. Nothing is sent yet.
    ///
    /// The token is that of HF_TOKEN or of the Hugging Face tools' login.
    pub(super) fn new(id: &ModelId, endpoint: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            impatient: repository(id, endpoint, FIRST_TIMEOUT, 0)?,
            patient: repository(id, endpoint, READ_TIMEOUT, RETRIES)?,
        })
    }

    /// The commit that a revision stands for. This is the first request, and fails fast.
    pub(super) fn commit(&self, revision: &str) -> Result<String, String> {
        let info = self.impatient.info().revision(revision).send().map_err(|error| describe(&error))?;
        info.sha.filter(|sha| is_commit(sha)).ok_or_else(|| "it names no commit for the revision".to_string())
    }

    /// Downloads the files of a commit into `folder`, with a bar on standard error if that is a terminal.
    ///
    /// PyTorch's own weights come only where there are no safetensors, ONNX files only where there is neither, and
    /// `model.onnx` before others.
    pub(super) fn download(&self, commit: &str, folder: &Path, progress: bool) -> Result<(), String> {
        self.fetch(commit, folder, FILES.map(String::from).to_vec(), progress)?;
        let pickles = without_weights(folder).into_iter().flat_map(|place| {
            let place = if place.is_empty() { place } else { format!("{place}/") };
            let format = Format::PyTorch;
            [format.single(), format.index(), format.shards()].map(|file| format!("{place}{file}"))
        });
        let pickles: Vec<String> = pickles.collect();
        if !pickles.is_empty() {
            self.fetch(commit, folder, pickles, progress)?;
        }
        for files in ONNX_FILES {
            if !without_weights(folder).contains(&String::new()) || has_only_onnx(folder) {
                break;
            }
            self.fetch(commit, folder, vec![files.to_string()], progress)?;
        }
        Ok(())
    }

    /// Downloads the files of a commit that match one of `patterns`.
    fn fetch(&self, commit: &str, folder: &Path, patterns: Vec<String>, progress: bool) -> Result<(), String> {
        let bar = if progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
            bar.set_style(style);
        }
        let result = self
            .patient
            .snapshot_download()
            .revision(commit)
            .allow_patterns(patterns)
            .ignore_patterns(vec![OUTSIDE.to_string()])
            .local_dir(folder)
            .progress(Bar { bar: bar.clone(), files: Mutex::default() })
            .send();
        bar.finish_and_clear();
        result.map(|_| ()).map_err(|error| describe(&error))
    }
}

fn repository(
    id: &ModelId,
    endpoint: Option<&str>,
    read_timeout: Duration,
    retries: usize,
) -> Result<HFRepositorySync<RepoTypeModel>, String> {
    let agent = concat!("centuple/", env!("CARGO_PKG_VERSION"));
    let client = reqwest::Client::builder()
        .user_agent(agent)
        .connect_timeout(FIRST_TIMEOUT)
        .read_timeout(read_timeout)
        .build()
        .map_err(|error| chain(&error))?;
    let mut builder = HFClient::builder().client(client).user_agent(agent).retry_max_attempts(retries);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint(endpoint);
    }
    let client: HFClientSync = builder.build_sync().map_err(|error| chain(&error))?;
    Ok(client.model(&id.organisation, &id.name))
}

/// Adds up the bytes of all files on one bar.
struct Bar {
    bar: ProgressBar,
    /// Bytes of each file; files that come in a batch are counted together under an empty name.
    files: Mutex<HashMap<String, u64>>,
}

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // Each file announces itself again after the whole has been announced.
            DownloadEvent::Start { total_bytes, .. } => {
                self.bar.set_length(self.bar.length().unwrap_or(0).max(*total_bytes));
            }
            DownloadEvent::Progress { files: changed } => {
                files.extend(changed.iter().map(|file| (file.filename.clone(), file.bytes_completed)));
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => {
                files.insert(String::new(), *bytes_completed);
            }
            DownloadEvent::Complete => {}
        }
        self.bar.set_position(files.values().sum());
    }
}

/// What the hub's answer means.
fn describe(error: &HFError) -> String {
    let hint = if matches!(error, HFError::Forbidden { .. }) {
        " (the token has no access to it)"
    } else if matches!(
        error,
        HFError::AuthRequired { .. } | HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. }
    ) {
        " (the model or the revision does not exist, or is private)"
    } else {
        ""
    };
    format!("{}{hint}", chain(error))
}

/// An error with its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
