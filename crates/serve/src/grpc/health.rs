//! `grpc.health.v1`: of the server by the empty name, of a service of gRPC, or of a model by its name.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{
    SERVICES, Shared,
    exchange::{Asked, Incoming, Reply, response},
    status,
};
use crate::{
    models::ModelState,
    open_inference,
    service::{Failure, Kind, Service},
};

/// How often a watched model is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// `Check`
pub(super) async fn check(asked: Asked) -> Result<Reply, Failure> {
    let HealthCheckRequest { service } = asked.read()?;
    match health(&asked.service, &service) {
        ServingStatus::ServiceUnknown => {
            let message = format!("`{service}` is neither a model nor a service of this server");
            Err(Failure::new(Kind::UnknownModel, message))
        }
        status @ (ServingStatus::Unknown | ServingStatus::Serving | ServingStatus::NotServing) => {
            Ok(Reply::of(&HealthCheckResponse { status: status.into() }))
        }
    }
}

/// `Watch`: the state now, and each other one after it, until the server stops.
pub(super) async fn watch(State(service): State<Shared>, request: Request) -> Response {
    let first = async { Incoming::new(&service, request)?.only().await?.read() }.await;
    let HealthCheckRequest { service: name } = match first {
        Ok(request) => request,
        Err(failure) => return status::refusal(&failure),
    };
    let (outbox, states) = mpsc::channel(1);
    tokio::spawn(tell(Arc::clone(&service), name, outbox));
    response(HeaderMap::new(), Body::new(StreamBody::new(ReceiverStream::new(states))))
}

async fn tell(service: Shared, name: String, outbox: mpsc::Sender<Result<Frame<Bytes>, Infallible>>) {
    let mut closing = service.closing.subscribe();
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = closing.wait_for(|closing| *closing) => {}
            () = outbox.closed() => return,
        }
        let (state, closes) = (health(&service, &name), *closing.borrow());
        if told.replace(state) != Some(state) {
            let message = Reply::of(&HealthCheckResponse { status: state.into() }).seal();
            if outbox.send(Ok(Frame::data(message))).await.is_err() {
                return;
            }
        }
        if closes {
            let _ = outbox.send(Ok(Frame::trailers(status::stopping()))).await;
            return;
        }
    }
}

fn health(service: &Service, name: &str) -> ServingStatus {
    let closing = *service.closing.borrow();
    let ready = match name.is_empty() || SERVICES.contains(&name) {
        true => Some(service.models.is_ready()),
        false => open_inference::known(&service.models, name, "")
            .ok()
            .flatten()
            .map(|known| known.state == ModelState::Ready),
    };
    match ready {
        None => ServingStatus::ServiceUnknown,
        Some(ready) if ready && !closing => ServingStatus::Serving,
        Some(_) => ServingStatus::NotServing,
    }
}
