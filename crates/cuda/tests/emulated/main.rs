//! What runs in the emulator: kernels, encoders, and encoders through the driver's calls.

mod checks;
mod driver;
mod emulator;
mod encoder;
mod encoders;
mod engine;
mod kernels;
mod product;
