//! The codec of `ShipUsage`: batches come out of the log already encoded and are sent as they are; acknowledgements are
//! decoded as usual.

use bytes::BufMut;
use prost::Message;
use tenon_contract::UsageAck;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

#[derive(Default)]
pub(crate) struct UsageCodec;

impl Codec for UsageCodec {
    type Encode = Vec<u8>;
    type Decode = UsageAck;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for UsageCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for UsageCodec {
    type Item = UsageAck;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<UsageAck>, Status> {
        UsageAck::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
