//! Requests and replies of the tasks.

mod tasks;
mod text_generation;
mod tiny;
