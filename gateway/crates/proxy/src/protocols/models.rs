//! The models that a caller may call: their list, and each of them. Answered from the snapshot; no endpoint is called.

use crate::base::headers::dialect_of;
use crate::base::percent::decoded;
use crate::base::problem::Problem;
use crate::pipeline::arrival::Arrival;
use crate::pipeline::authenticate::authenticate;
use crate::pipeline::response::{ResponseBody, json};
use crate::pipeline::routes::described;
use crate::reactor::clock::Clock;
use crate::reactor::credentials::Credentials;
use http::{Request, Response};
use hyper::body::Incoming;
use tenon_dialects::{model_in, model_list_in};
use tenon_policy::Refusal;
use tenon_usage::Operation;

/// `GET /v1/models`
pub async fn models(
    credentials: &Credentials,
    clock: &Clock,
    request: &Request<Incoming>,
    arrival: &Arrival,
) -> Result<Response<ResponseBody>, Problem> {
    let key = authenticate(credentials, clock, request.headers(), &arrival.peer, Operation::Unspecified).await?;
    let snapshot = credentials.snapshots().load_full();
    let routed = snapshot.routing(&key.record.tenant_id);
    let names = routed.iter().flat_map(|routing| routing.models()).map(|model| &*model.name).filter(|name| key.allows(name));
    Ok(json(model_list_in(dialect_of(request.headers()), names), arrival.id))
}

/// `GET /v1/models/{id}`: refused as a call of that model would be.
pub async fn model(
    credentials: &Credentials,
    clock: &Clock,
    request: &Request<Incoming>,
    arrival: &Arrival,
) -> Result<Response<ResponseBody>, Problem> {
    let key = authenticate(credentials, clock, request.headers(), &arrival.peer, Operation::Unspecified).await?;
    let name = described(request.uri().path()).and_then(decoded).ok_or(Refusal::ModelNotFound)?;
    let snapshot = credentials.snapshots().load_full();
    let routed = snapshot.routing(&key.record.tenant_id).ok_or(Refusal::ModelNotFound)?;
    let model = routed.model(&name).ok_or(Refusal::ModelNotFound)?;
    if !key.allows(&model.name) {
        return Err(Refusal::ModelNotAllowed.into());
    }
    Ok(json(model_in(dialect_of(request.headers()), &model.name), arrival.id))
}
