//! Whole encoders in the emulator.

use centuple_cuda::Architecture;

use crate::KINDS;
use crate::emulator::Emulator;
use crate::encoders::{self, Failure, Maker};

/// Runs a check on each kind of machine but the oldest, which the driver's tests are on.
fn on_newer(check: impl Fn(&Maker<Emulator>) -> Result<(), Failure>) -> Result<(), Failure> {
    for &architecture in &KINDS[1..] {
        check(&Maker { make: &|| Emulator::new(11), architecture })?;
    }
    Ok(())
}

#[test]
fn embeddings_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::embeddings_are_the_references)
}

#[test]
fn heads_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::heads_are_the_references)
}

#[test]
fn modern_layers_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::modern_layers_are_the_references)
}

#[test]
fn steps_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::steps_are_the_references)
}

#[test]
fn answers_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::answers::are_the_references)
}

#[test]
fn published_sizes_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::published_sizes_are_the_references)
}

#[test]
fn quantised_layers_are_the_references() -> Result<(), Failure> {
    on_newer(encoders::quantised_layers_are_the_references)
}

/// On a machine whose library multiplies by scales, and on one whose library doesn't.
#[test]
fn fp8_layers_are_the_references() -> Result<(), Failure> {
    for &architecture in &Architecture::BUILT[3..] {
        encoders::fp8::layers_are_the_references(&Maker { make: &|| Emulator::new(13), architecture })?;
    }
    Ok(())
}

#[test]
fn fp8_needs_a_newer_gpu() -> Result<(), Failure> {
    encoders::fp8::needs_a_newer_gpu(&Maker { make: &|| Emulator::new(14), architecture: Architecture::BUILT[2] })
}

#[test]
fn what_does_not_fit_is_an_error() -> Result<(), Failure> {
    on_newer(encoders::what_does_not_fit_is_an_error)
}
