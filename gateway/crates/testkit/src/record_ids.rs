//! For load tests: keeps only the ids of usage records. Decoding every field would cost the control plane of a benchmark half as much
//! as the gateway spends on a call, on the cores that both share.

use bytes::Bytes;
use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tenon_contract::UsageAck;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const SHIP: &str = "/tenon.gateway.v1.GatewayControl/ShipUsage";

/// The part of `UsageBatch` that is needed; other fields are skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, tag = "1")]
    batch_id: String,
    #[prost(message, repeated, tag = "2")]
    records: Vec<Id>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(bytes = "bytes", tag = "1")]
    record_id: Bytes,
}

pub type Stored = Arc<Mutex<HashSet<[u8; 16]>>>;

/// The control plane with `ShipUsage` replaced.
#[derive(Clone)]
pub struct RecordIdsOnly<S> {
    inner: S,
    /// `None` = the control plane keeps whole records itself.
    stored: Option<Stored>,
}

impl<S> RecordIdsOnly<S> {
    pub fn new(inner: S, stored: Option<Stored>) -> Self {
        Self { inner, stored }
    }
}

impl<S: NamedService> NamedService for RecordIdsOnly<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> tonic::codegen::Service<http::Request<Body>> for RecordIdsOnly<S>
where
    S: tonic::codegen::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match &self.stored {
            Some(stored) if request.uri().path() == SHIP => {
                let ship = Ship(stored.clone());
                Box::pin(async move {
                    let mut grpc = Grpc::new(ProstCodec::<UsageAck, Ids>::default());
                    Ok(grpc.streaming(ship, request).await)
                })
            }
            _ => Box::pin(self.inner.call(request)),
        }
    }
}

struct Ship(Stored);

impl StreamingService<Ids> for Ship {
    type Response = UsageAck;
    type ResponseStream = ReceiverStream<Result<UsageAck, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Ids>>) -> Self::Future {
        let stored = self.0.clone();
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(64);
            let mut batches = request.into_inner();
            tokio::spawn(async move {
                while let Some(Ok(batch)) = batches.next().await {
                    let ack = store(&stored, batch);
                    if sender.send(Ok(ack)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

fn store(stored: &Stored, batch: Ids) -> UsageAck {
    let mut ack = UsageAck { batch_id: batch.batch_id, ..UsageAck::default() };
    let mut stored = stored.lock().unwrap();
    for id in batch.records.iter().filter_map(|record| <[u8; 16]>::try_from(&record.record_id[..]).ok()) {
        let new = stored.insert(id);
        ack.stored += u32::from(new);
        ack.duplicates += u32::from(!new);
    }
    ack
}
