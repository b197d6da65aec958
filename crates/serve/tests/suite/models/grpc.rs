//! Models that come and go, as gRPC tells it.

use centuple_serve::ModelOptions;
use tonic::Code;

use super::{
    await_state, serve,
    shelf::{Shelf, source},
};
use crate::harness::grpc::{
    Grpc,
    inference::{ModelReadyRequest, RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest},
};

fn load(repository_name: &str, model_name: &str) -> RepositoryModelLoadRequest {
    let (repository_name, model_name) = (repository_name.into(), model_name.into());
    RepositoryModelLoadRequest { repository_name, model_name, ..Default::default() }
}

fn unload(model_name: &str) -> RepositoryModelUnloadRequest {
    RepositoryModelUnloadRequest { model_name: model_name.into(), ..Default::default() }
}

#[test]
fn clients_load_and_unload_if_they_are_let() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, ModelOptions { control: true, ..ModelOptions::default() });
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = grpc.inference();
        // KServe's clients send the name as the first field.
        for (repository, model) in [("", "a"), ("a", "")] {
            client.repository_model_load(load(repository, model)).await.unwrap();
            let ready = ModelReadyRequest { name: "a".into(), version: String::new() };
            assert!(client.model_ready(ready.clone()).await.unwrap().into_inner().ready);
            assert_eq!(grpc.health("a").await.unwrap(), 1);
            client.repository_model_unload(unload("a")).await.unwrap();
            await_state(&server, "a:1 UNAVAILABLE");
            assert!(!client.model_ready(ready).await.unwrap().into_inner().ready);
            assert_eq!(grpc.health("a").await.unwrap(), 2);
            let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
            assert_eq!((index.models[0].name.as_str(), index.models[0].state.as_str()), ("a", "UNAVAILABLE"));
        }
        assert_eq!(client.repository_model_load(load("", "b")).await.unwrap_err().code(), Code::NotFound);
    });
    let server = serve(&shelf, ModelOptions::default());
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = grpc.inference();
        assert_eq!(client.repository_model_load(load("", "a")).await.unwrap_err().code(), Code::Unimplemented);
        assert_eq!(client.repository_model_unload(unload("a")).await.unwrap_err().code(), Code::Unimplemented);
    });
}
