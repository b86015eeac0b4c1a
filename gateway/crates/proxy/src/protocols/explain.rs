//! `GET /v1/requests/{id}/explain`: why a call went as it did. No endpoint is called.

use crate::base::problem::Problem;
use crate::pipeline::arrival::Arrival;
use crate::pipeline::authenticate::authenticate;
use crate::pipeline::response::{ResponseBody, json};
use crate::pipeline::routes::explained;
use crate::reactor::state::Reactor;
use http::{Request, Response};
use hyper::body::Incoming;
use tenon_usage::Operation;

pub async fn explain(reactor: &Reactor, request: &Request<Incoming>, arrival: &Arrival) -> Result<Response<ResponseBody>, Problem> {
    let key = authenticate(&reactor.credentials, &reactor.clock, request.headers(), &arrival.peer, Operation::Unspecified).await?;
    let id = explained(request.uri().path());
    let explanation = id.and_then(|id| reactor.shared.completed_calls.explain_to(&key, id)).ok_or(Problem::UNKNOWN_REQUEST)?;
    Ok(json(explanation.to_string().into(), arrival.id))
}
