//! The Open Inference Protocol v2 (`inference.GRPCInferenceService`) over gRPC, on a listener of its own.
//!
//! The same pipeline as every other call: authenticate, admit, route, call, meter. Messages pass byte for byte, except that the model's name is
//! replaced where a route renames it. One record for each `ModelInfer`, `ModelMetadata` and `ModelStreamInfer`, the whole stream included.

mod framing;
mod message;
mod status;
mod request_body;
mod attempt;
mod relay;
mod response;
mod handler;
mod connection;

pub use attempt::GrpcConnections;
pub use connection::serve_connection;
pub use handler::Grpc;
