//! The wire between gateway and control plane.
//!
//! Owns: nothing by hand; everything is generated from `contracts/gateway.proto`.
//! Promises: the types of the checked-in contract, client always, server with the feature `server` (tests only).
//! Needs: nothing.
#![allow(clippy::all, clippy::cognitive_complexity)]

tonic::include_proto!("tenon.gateway.v1");
