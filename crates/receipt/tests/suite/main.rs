//! The measures of an evaluation and the report of it.

mod data;
mod goldens;
mod properties;
mod report;
mod sample;
mod search;
