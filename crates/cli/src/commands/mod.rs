//! The commands.

mod bench;
mod inspect;
mod pull;
mod run;
mod serve;

pub(crate) use bench::bench;
pub(crate) use inspect::inspect;
pub(crate) use pull::pull;
pub(crate) use run::run;
pub(crate) use serve::serve;
