//! The Open Inference Protocol, version 2, less its transport: what a request asks for, what is
//! answered, what is told of a model. `http/open_inference` writes it as JSON, `grpc/open_inference`
//! as messages.
//!
//! A model of the name `transformer_onnx_inference`, `transformer_tensorrt_inference`,
//! `transformer_onnx_model` or `transformer_tensorrt_model`, as transformer-deploy makes them, is
//! the only one that is served: the former two take texts, the latter two tokens.

pub(crate) mod describe;
pub(crate) mod generate;
mod outputs;
mod request;
mod tensor;

use std::sync::Arc;

use crate::{
    models::Known,
    service::{Failure, Kind, Models, Served},
};
pub(crate) use outputs::{Data, OutputTensor, Plan};
pub use request::InferRequest;
pub(crate) use request::{MOST_INPUTS, WantedOutput, refused};
pub(crate) use tensor::{Claim, Tensor, invalid};

/// The server's name.
pub(crate) const SERVER: &str = "centuple";

/// What is answered to calls that share memory and the like.
pub(crate) const LEFT_OUT: &str = "this server shares no memory with clients, and its log and traces are set at its \
                                   start; send tensors in the body";

/// What a model is said to take. It takes the other all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    Texts,
    Tokens,
    /// A text that the model goes on with.
    Generation,
}

/// The interface that a name of transformer-deploy asks for.
fn alias(name: &str) -> Option<Interface> {
    match name {
        "transformer_onnx_inference" | "transformer_tensorrt_inference" => Some(Interface::Texts),
        "transformer_onnx_model" | "transformer_tensorrt_model" => Some(Interface::Tokens),
        _ => None,
    }
}

/// A model by the name and the version that a client has for it; the empty version is the one that is
/// served where none is said.
pub(crate) fn find(models: &Models, name: &str, version: &str) -> Result<(Arc<Served>, Interface), Failure> {
    let alias = alias(name);
    let served = match (models.find_version(name, version), alias) {
        (Err(unknown @ Failure { kind: Kind::UnknownModel, .. }), Some(_)) => {
            let only = models.find_or_only(None)?;
            if !version.is_empty() && only.version != version { Err(unknown) } else { Ok(only) }
        }
        (found, _) => found,
    }?;
    let takes_texts = describe::takes_texts(&served.model);
    let interface = if served.generator.is_some() {
        Interface::Generation
    } else if takes_texts {
        alias.unwrap_or(Interface::Texts)
    } else {
        Interface::Tokens
    };
    Ok((served, interface))
}

/// Whether there is such a model, loaded or not.
pub(crate) fn check(models: &Models, name: &str, version: &str) -> Result<(), Failure> {
    models.check(name, version).or_else(|failure| match find(models, name, version) {
        Ok(_) | Err(Failure { kind: Kind::NotLoaded(_) | Kind::LoadFailed, .. }) => Ok(()),
        Err(_) => Err(failure),
    })
}

/// What is known of such a model, loaded or not.
pub(crate) fn known(models: &Models, name: &str, version: &str) -> Result<Option<Known>, Failure> {
    check(models, name, version)?;
    let id = match find(models, name, version) {
        Ok((served, _)) => served.model.card.id.clone(),
        Err(_) => name.to_owned(),
    };
    let is_version = |known: &Known| if version.is_empty() { known.default } else { known.version == version };
    Ok(models.known().into_iter().find(|known| known.name == id && is_version(known)))
}
