//! What a caller may call: the list of models, and each of them. Answered from the snapshot; no upstream is asked.

use crate::answer::{Reply, header_of};
use crate::ask::dialect_of;
use crate::authenticate::authenticate;
use crate::doors::described;
use crate::problem::Problem;
use crate::realtime::percent_decoded;
use crate::road::Arrival;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use tenon_dialects::{model_in, model_list_in};
use tenon_policy::Refusal;
use tenon_snapshot::Key;
use tenon_usage::Operation;

/// `GET /v1/models`
pub async fn models(worker: &Worker, request: &Request<Incoming>, arrival: &Arrival) -> Result<Response<Reply>, Problem> {
    let key = caller(worker, request, arrival).await?;
    let snapshot = worker.snapshots.load_full();
    let routed = snapshot.routing(&key.record.tenant_id);
    let names = routed.iter().flat_map(|routing| routing.models()).map(|model| &*model.name).filter(|name| key.allows(name));
    Ok(told(model_list_in(dialect_of(request.headers()), names), arrival))
}

/// `GET /v1/models/{id}`: refused as a call of that model would be.
pub async fn model(worker: &Worker, request: &Request<Incoming>, arrival: &Arrival) -> Result<Response<Reply>, Problem> {
    let key = caller(worker, request, arrival).await?;
    let name = described(request.uri().path()).and_then(percent_decoded).ok_or(Refusal::ModelNotFound)?;
    let snapshot = worker.snapshots.load_full();
    let routed = snapshot.routing(&key.record.tenant_id).ok_or(Refusal::ModelNotFound)?;
    let model = routed.model(&name).ok_or(Refusal::ModelNotFound)?;
    if !key.allows(&model.name) {
        return Err(Refusal::ModelNotAllowed.into());
    }
    Ok(told(model_in(dialect_of(request.headers()), &model.name), arrival))
}

async fn caller(worker: &Worker, request: &Request<Incoming>, arrival: &Arrival) -> Result<Arc<Key>, Problem> {
    let key = authenticate(worker, request.headers(), &arrival.peer, Operation::Unspecified).await?;
    if key.may_call_models() { Ok(key) } else { Err(Refusal::MayNotCall.into()) }
}

fn told(body: Bytes, arrival: &Arrival) -> Response<Reply> {
    let mut response = Response::new(Reply::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header_of::REQUEST_ID, header_of::request_id(arrival.id));
    response
}
