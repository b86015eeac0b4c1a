//! Addresses on loopback that no other process gets while the tests run.
//!
//! A port that was bound and given back may be taken by any process before it is used. Here the socket stays bound, without listening, until
//! the test process ends.

use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Mutex;

static RESERVED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

fn reserve(reusable: bool) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Whoever sets both options may bind the same address as long as this socket does not listen.
    socket.set_reuse_address(reusable).unwrap();
    socket.set_reuse_port(reusable).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    RESERVED.lock().unwrap().push(socket);
    address
}

/// An address for a process under test to listen on. The system gives it to nobody else.
#[must_use]
pub fn reserved_address() -> SocketAddr {
    reserve(true)
}

/// An address where connections are refused, for as long as the tests run.
#[must_use]
pub fn unused_address() -> SocketAddr {
    reserve(false)
}
