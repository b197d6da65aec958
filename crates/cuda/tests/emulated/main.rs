//! What runs in the emulator: kernels, encoders, and encoders through the driver's calls.

mod checks;
mod driver;
mod emulator;
mod encoder;
mod encoders;
mod engine;
mod families;
mod kernels;
mod product;
mod seq2seq;

use centuple_cuda::Architecture;

/// One of each kind of machine: without asynchronous copies, with them, and with products of warpgroups.
const KINDS: [Architecture; 3] = [Architecture::BUILT[0], Architecture::BUILT[1], Architecture::BUILT[5]];
