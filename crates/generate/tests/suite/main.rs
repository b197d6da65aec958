//! Decoding, constraints and the scheduler.

mod constraint;
mod goldens;
mod scheduler;
mod table;
