//! `centuple pull`

use std::io::{self, Write};
use std::process::ExitCode;

use centuple::hub::{self, HubOptions};

use super::unless_closed;
use crate::args::Pull;

/// Finds or downloads a model and prints its folder.
pub(crate) fn pull(command: &Pull) -> anyhow::Result<ExitCode> {
    let folder = hub::resolve(&command.model, &HubOptions::from_env()?)?;
    unless_closed(writeln!(io::stdout(), "{}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
