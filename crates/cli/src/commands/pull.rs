//! `centuple pull`

use std::process::ExitCode;

use centuple::hub::{self, HubOptions};

use crate::args::Pull;

/// Finds or downloads a model and prints its folder.
pub(crate) fn pull(command: &Pull) -> anyhow::Result<ExitCode> {
    let folder = hub::resolve(&command.model, &HubOptions::from_env()?)?;
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}
