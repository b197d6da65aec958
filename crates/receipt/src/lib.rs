//! What an optimisation costs, and the search that keeps it within a budget.
//!
//! - [`data`] reads labelled examples, [`Split`] parts them, [`metrics`] score a model's answers, and [`Bootstrap`] says
//!   how far such a score can be trusted.
//! - [`search`](mod@search) finds the cheapest precision of each layer that keeps an end metric within the budget.
//! - [`report`] is the receipt: its data, and its faces (JSON, plain text, HTML).
//!
//! Nothing here knows a model, a graph or an engine: callers bring figures and callbacks.

mod bootstrap;
pub mod data;
pub mod metrics;
pub mod report;
pub mod rung;
pub mod search;
mod split;

pub use bootstrap::{Bootstrap, BootstrapError, Estimate, Paired};
pub use rung::Rung;
pub use split::{Split, SplitError, SplitOptions};
