//! A TCP proxy between a gateway and an upstream that injects faults at exact bytes.

use crate::wait::wait_for;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The fault of each connection. Positions are bytes of the upstream's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every piece waits this long, in both directions.
    Latency(Duration),
    /// Accepted and closed, before anything is read.
    CloseAtOnce,
    /// Accepted and reset.
    ResetAtOnce,
    /// Accepted; the request is read and dropped, and no answer comes.
    Blackhole,
    /// Accepted, and never read from: the sender's window fills up.
    Deaf,
    /// The answer stops here with a reset.
    ResetAt(usize),
    /// The answer stops here with an orderly end.
    CloseAt(usize),
    /// The answer's side is closed here, the other goes on being read: half of a connection.
    HalfCloseAt(usize),
    /// The answer stops here and nothing more happens.
    SilentAt(usize),
    /// From here on one byte comes in each interval.
    Drip(usize, Duration),
}

#[derive(Clone)]
pub struct FaultProxy {
    pub address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
}

impl FaultProxy {
    pub fn start(upstream: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), fault: Arc::new(Mutex::new(fault)) };
        let fault = proxy.fault.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let fault = *fault.lock().unwrap();
                std::thread::spawn(move || serve(caller, upstream, fault));
            }
        });
        proxy
    }

    /// For connections from now on.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

fn serve(mut caller: TcpStream, upstream: SocketAddr, fault: Fault) {
    match fault {
        Fault::CloseAtOnce => return,
        Fault::ResetAtOnce => return reset(&caller),
        Fault::Deaf => return std::thread::sleep(Duration::from_secs(30)),
        Fault::Blackhole => {
            let _ = std::io::copy(&mut caller, &mut std::io::sink());
            return;
        }
        _ => {}
    }
    let Ok(upstream) = TcpStream::connect(upstream) else { return };
    for stream in [&caller, &upstream] {
        stream.set_nodelay(true).unwrap();
    }
    let (from, to) = (caller.try_clone().unwrap(), upstream.try_clone().unwrap());
    let latency = if let Fault::Latency(latency) = fault { latency } else { Duration::ZERO };
    let up = std::thread::spawn(move || pass_up(from, to, latency));
    pass_down(upstream, caller, fault);
    let _ = up.join();
}

/// Ends the connection with a reset: bytes that have not arrived yet are lost.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    // Sends nothing; it wakes the other direction, so that the last handle goes.
    let _ = stream.shutdown(Shutdown::Read);
}

fn pass_up(mut from: TcpStream, mut to: TcpStream, latency: Duration) {
    let mut piece = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        std::thread::sleep(latency);
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    // Shows the upstream that its caller is gone.
    let _ = to.shutdown(Shutdown::Both);
}

fn pass_down(mut from: TcpStream, mut to: TcpStream, fault: Fault) {
    let mut passed = 0;
    let mut piece = [0; 16 << 10];
    let stop = match fault {
        Fault::ResetAt(at) | Fault::CloseAt(at) | Fault::HalfCloseAt(at) | Fault::SilentAt(at) => at,
        _ => usize::MAX,
    };
    while let Ok(read @ 1..) = from.read(&mut piece) {
        let whole = read.min(stop - passed);
        if send(&mut to, &piece[..whole], passed, fault).is_err() {
            return;
        }
        passed += whole;
        if passed == stop {
            return end(&from, &to, fault);
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn send(to: &mut TcpStream, bytes: &[u8], passed: usize, fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Latency(latency) => std::thread::sleep(latency),
        Fault::Drip(from, interval) => {
            let (at_once, slowly) = bytes.split_at(from.saturating_sub(passed).min(bytes.len()));
            to.write_all(at_once)?;
            for byte in slowly {
                to.write_all(&[*byte])?;
                std::thread::sleep(interval);
            }
            return Ok(());
        }
        _ => {}
    }
    to.write_all(bytes)
}

/// Whether all that was sent has arrived at the other side. A reset drops what is still in the send queue; what has arrived stays readable.
#[allow(unsafe_code)] // one plain system call on a local integer
fn has_arrived(stream: &TcpStream) -> bool {
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is open, and TIOCOUTQ writes one integer.
    let answer = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    answer != 0 || queued == 0
}

/// The answer has reached the position of the fault.
fn end(from: &TcpStream, to: &TcpStream, fault: Fault) {
    match fault {
        Fault::ResetAt(_) => {
            let _ = from.shutdown(Shutdown::Both);
            wait_for("the answer arrives", || has_arrived(to));
            reset(to);
        }
        Fault::HalfCloseAt(_) => {
            let _ = to.shutdown(Shutdown::Write);
            std::thread::sleep(Duration::from_secs(5));
        }
        Fault::SilentAt(_) => std::thread::sleep(Duration::from_secs(30)),
        _ => {
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

/// An address where connections are never accepted: its queue is full, so the system drops every SYN.
pub struct Unaccepting {
    pub address: SocketAddr,
    listener: TcpListener,
    queued: Vec<TcpStream>,
}

impl Unaccepting {
    #[must_use]
    pub fn start() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let fill = || TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok();
        let queued = std::iter::from_fn(fill).collect();
        Self { address, listener, queued }
    }

    /// Begins to accept, and passes connections on as they are.
    pub fn accept_after(self, wait: Duration, upstream: SocketAddr) {
        std::thread::spawn(move || {
            std::thread::sleep(wait);
            drop(self.queued);
            for caller in self.listener.incoming().flatten() {
                std::thread::spawn(move || serve(caller, upstream, Fault::None));
            }
        });
    }
}
