//! What there is, and loading and unloading on demand.

use super::{
    Asked, Reply,
    messages::{
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
        RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, repository_index_response::ModelIndex,
    },
};
use crate::{
    models::{Known, check_parameters},
    service::Failure,
};

pub(super) async fn index(asked: Asked) -> Result<Reply, Failure> {
    let RepositoryIndexRequest { ready, .. } = asked.read()?;
    let entry = |known: Known| ModelIndex {
        name: known.name,
        version: known.version,
        state: known.state.name().into(),
        reason: known.reason,
    };
    let models = asked.service.index(ready).into_iter().map(entry).collect();
    Ok(Reply::of(&RepositoryIndexResponse { models }))
}

pub(super) async fn load(asked: Asked) -> Result<Reply, Failure> {
    let RepositoryModelLoadRequest { repository_name, model_name, parameters } = asked.read()?;
    check_parameters(parameters.keys())?;
    asked.service.load_model(name(&repository_name, &model_name)).await?;
    Ok(Reply::of(&RepositoryModelLoadResponse::default()))
}

pub(super) async fn unload(asked: Asked) -> Result<Reply, Failure> {
    let RepositoryModelUnloadRequest { repository_name, model_name, parameters } = asked.read()?;
    check_parameters(parameters.keys())?;
    asked.service.unload_model(name(&repository_name, &model_name)).await?;
    Ok(Reply::of(&RepositoryModelUnloadResponse::default()))
}

/// The model's name, which KServe's clients send in the place of the repository's.
fn name<'a>(repository: &'a str, model: &'a str) -> &'a str {
    if model.is_empty() { repository } else { model }
}
