//! The real model of several tests.

use std::path::PathBuf;

use centuple::hub::{DEFAULT_MODEL, HubOptions, resolve};

/// The model's folder, fetched if need be.
pub(crate) fn folder() -> Option<PathBuf> {
    let resolved = HubOptions::from_env().and_then(|options| resolve(DEFAULT_MODEL, &options));
    match resolved {
        Ok(folder) => Some(folder),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped, since the model cannot be had: {error}");
            None
        }
    }
}
