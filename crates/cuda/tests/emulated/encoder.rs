//! Whole encoders in the emulator.

use centuple_cuda::Architecture;

use crate::KINDS;
use crate::emulator::Emulator;
use crate::encoders::{self, Failure, Maker};

/// Runs a check on each kind of machine.
fn on_all(check: impl Fn(&Maker<Emulator>) -> Result<(), Failure>) -> Result<(), Failure> {
    for architecture in KINDS {
        check(&Maker { make: &|| Emulator::new(11), architecture })?;
    }
    Ok(())
}

#[test]
fn embeddings_are_the_references() -> Result<(), Failure> {
    on_all(encoders::embeddings_are_the_references)
}

#[test]
fn heads_are_the_references() -> Result<(), Failure> {
    on_all(encoders::heads_are_the_references)
}

#[test]
fn modern_layers_are_the_references() -> Result<(), Failure> {
    on_all(encoders::modern_layers_are_the_references)
}

#[test]
fn steps_are_the_references() -> Result<(), Failure> {
    on_all(encoders::steps_are_the_references)
}

#[test]
fn published_sizes_are_the_references() -> Result<(), Failure> {
    on_all(encoders::published_sizes_are_the_references)
}

#[test]
fn quantised_layers_are_the_references() -> Result<(), Failure> {
    on_all(encoders::quantised_layers_are_the_references)
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
    on_all(encoders::what_does_not_fit_is_an_error)
}
