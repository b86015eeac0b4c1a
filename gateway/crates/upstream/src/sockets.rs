//! Socket options that every connection of the gateway gets, to callers and to endpoints.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// A peer that vanished without closing is noticed after this, whether data is being sent or not.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Frees what a connection holds when its peer vanished without closing, as a machine does that lost its power.
///
/// # Errors
/// When the system refuses the options.
pub fn detect_dead_peer(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(DEAD_AFTER / 2).with_interval(DEAD_AFTER / 6).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))
}
