//! What turns rows of logits into text, without knowing what computes them.
//!
//! ```text
//! Parameters ── Processors ── Sampler | BeamSearch ── TextStream
//!                                  │
//! Generator: a thread that runs step after step
//!     └── Scheduler: who runs in which step, on which pages of the key/value cache ── StepEngine
//! ```
//!
//! [`Parameters`] are those of transformers' `generate`, by name and default. The [`Scheduler`] is a state machine without a clock
//! or a thread: it says what a step must compute, takes the logits, and says what each request got. What a request
//! gets depends on its tokens, parameters and seed alone, never on what ran beside it.

mod beam;
mod candidates;
mod constraint;
mod engine;
mod error;
mod generator;
mod likelihood;
mod lookup;
mod numbers;
mod pages;
mod parameters;
mod processors;
mod random;
mod sampler;
mod scheduler;
mod stop;
mod text_stream;

pub use beam::{BeamSearch, Branch, Hypothesis};
pub use candidates::{Candidate, Candidates};
pub use constraint::{Constraint, Grammars};
pub use engine::{Encoding, Logits, PageCopy, Peak, Source, Step, StepEngine, StepError, StepLimits, StepSpan};
pub use error::{ParameterError, Refusal, SampleError};
pub use generator::{Generator, Ticket};
pub use likelihood::log_likelihoods;
pub use lookup::draft;
pub use pages::{PagePool, Scope};
pub use parameters::{EarlyStopping, Parameters};
pub use processors::{Context, Processors};
pub use random::{philox, uniform};
pub use sampler::{Place, Sampled, Sampler, TokenLogprob};
pub use scheduler::{Finish, Request, RequestId, Scheduler, Statistics, Update};
pub use stop::{Scan, StopStrings};
pub use text_stream::{Decode, Piece, TextStream};
