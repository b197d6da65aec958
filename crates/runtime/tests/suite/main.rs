//! Plans and sessions: every op, shared batches, few rows.

mod few_rows;
mod op_suite;
mod sharing;
