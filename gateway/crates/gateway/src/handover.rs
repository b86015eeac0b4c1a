//! A new process takes over the listening sockets of the running one, so that no connection is refused or reset during a restart.
//!
//! The new process connects to a Unix socket in the data directory, receives the listening sockets (SCM_RIGHTS), starts completely, and reports
//! that it is ready. Only then the old one stops accepting and drains. The queues of waiting connections belong to the sockets and pass with
//! them. If the new process dies before it is ready, the old one goes on unchanged.
//!
//! Protocol: the new process sends `H`. The answer is one byte for each socket (its role) with its descriptor, then `.`. The new process sends `r`
//! when it is ready, and the old one `g` when it stops.

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg};
use std::fs::{File, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "handover.sock";
/// For one message of the protocol.
const MESSAGE_MAX: Duration = Duration::from_secs(5);
/// For the new process to become ready; its own limit is shorter.
const READY_MAX: Duration = Duration::from_secs(120);
const SOCKETS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Callers = b'c' as isize,
    Admin = b'a' as isize,
    Grpc = b'g' as isize,
}

impl Role {
    fn of(byte: u8) -> Option<Self> {
        [Self::Callers, Self::Admin, Self::Grpc].into_iter().find(|role| *role as u8 == byte)
    }
}

pub type Sockets = Vec<(Role, TcpListener)>;

/// The running process, for the new one.
pub struct Predecessor {
    stream: UnixStream,
    sockets: Sockets,
}

impl Predecessor {
    /// `None` = no process runs on this data directory.
    ///
    /// # Errors
    /// When the answer comes from another user's process or does not follow the protocol.
    pub fn connect(data_dir: &Path) -> io::Result<Option<Self>> {
        let socket = SocketPath::of(data_dir)?;
        let mut stream = match UnixStream::connect(&socket.path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => return Err(error),
        };
        check_user(&stream)?;
        stream.set_read_timeout(Some(MESSAGE_MAX))?;
        stream.write_all(b"H")?;
        let mut sockets = Vec::new();
        loop {
            match receive(&stream)? {
                (b'.', None) => return Ok(Some(Self { stream, sockets })),
                (role, Some(socket)) if sockets.len() < SOCKETS_MAX => {
                    if let Some(role) = Role::of(role) {
                        sockets.push((role, TcpListener::from(socket)));
                    }
                }
                _ => return Err(io::Error::other("the running gateway did not follow the protocol")),
            }
        }
    }

    /// Its sockets of this role at this address. The others are closed when the predecessor is dropped.
    pub fn take(&mut self, role: Role, address: SocketAddr) -> Vec<TcpListener> {
        let fits = |(of, socket): &mut (Role, TcpListener)| *of == role && socket.local_addr().is_ok_and(|at| at == address);
        self.sockets.extract_if(.., fits).map(|(_, socket)| socket).collect()
    }

    /// Reports that this process serves, and waits for the confirmation.
    pub fn ready(mut self) -> io::Result<()> {
        self.stream.write_all(b"r")?;
        self.stream.read_exact(&mut [0])
    }
}

/// The side of the running process: listens for a successor.
pub struct HandoverListener {
    listener: UnixListener,
    sockets: Arc<Sockets>,
}

impl HandoverListener {
    /// From now on a successor connects to this process.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn open(data_dir: &Path, sockets: Sockets) -> io::Result<Self> {
        let socket = SocketPath::of(data_dir)?;
        // A socket file outlives its process, and that of a predecessor is ours now.
        let _absent = std::fs::remove_file(&socket.path);
        let listener = UnixListener::bind(&socket.path)?;
        std::fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, sockets: Arc::new(sockets) })
    }

    /// Waits until a successor is ready. Needs a runtime.
    pub async fn until_succeeded(self) {
        let listener = match tokio::net::UnixListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("sockets cannot be handed over to a successor: {error}");
                return std::future::pending().await;
            }
        };
        loop {
            let Ok(stream) = listener.accept().await.and_then(|(stream, _)| stream.into_std()) else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let sockets = self.sockets.clone();
            match tokio::task::spawn_blocking(move || hand_over(stream, &sockets)).await {
                Ok(Ok(())) => return tracing::info!("a successor is ready and has the sockets"),
                Ok(Err(error)) => tracing::warn!("a successor took the sockets and did not become ready: {error}"),
                Err(_) => {}
            }
        }
    }
}

fn hand_over(mut stream: UnixStream, sockets: &Sockets) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(MESSAGE_MAX))?;
    stream.set_write_timeout(Some(MESSAGE_MAX))?;
    check_user(&stream)?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word != *b"H" {
        return Err(io::Error::other("not a gateway"));
    }
    for (role, socket) in sockets {
        send(&stream, *role as u8, socket)?;
    }
    stream.write_all(b".")?;
    stream.set_read_timeout(Some(READY_MAX))?;
    stream.read_exact(&mut word)?;
    stream.write_all(b"g")
}

fn check_user(stream: &UnixStream) -> io::Result<()> {
    let other = rustix::net::sockopt::socket_peercred(stream)?;
    let same = other.uid == rustix::process::geteuid();
    same.then_some(()).ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "another user's process"))
}

fn send(stream: &UnixStream, role: u8, socket: &TcpListener) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(&[role])], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    };
    Ok((word[0], control.drain().find_map(rights)))
}

/// The path of the socket. It may be longer than a socket address (108 bytes), so it is opened relative to the directory's descriptor.
struct SocketPath {
    path: PathBuf,
    _dir: File,
}

impl SocketPath {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let dir = File::open(data_dir)?;
        Ok(Self { path: format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()).into(), _dir: dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(dir: &Path) -> (HandoverListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (HandoverListener::open(dir, vec![(Role::Callers, socket)]).unwrap(), address)
    }

    /// Runs `successor` beside the old process, and returns whether it succeeded that process.
    fn beside(old: HandoverListener, successor: impl FnOnce() + Send + 'static) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let running = tokio::task::spawn_blocking(successor);
            let succeeded = tokio::select! {
                () = old.until_succeeded() => true,
                () = tokio::time::sleep(Duration::from_millis(300)) => false,
            };
            running.await.unwrap();
            succeeded
        })
    }

    #[test]
    fn sockets_pass_with_the_connections_in_their_queue() {
        // Longer than any socket address.
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let (old, address) = handover(&deep);
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let mode = std::fs::metadata(deep.join(NAME)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let at = deep.clone();
        assert!(beside(old, move || {
            let mut predecessor = Predecessor::connect(&at).unwrap().unwrap();
            assert!(predecessor.take(Role::Admin, address).is_empty() && predecessor.take(Role::Callers, "127.0.0.1:1".parse().unwrap()).is_empty());
            let [socket] = &predecessor.take(Role::Callers, address)[..] else { panic!("one socket") };
            assert_eq!(socket.accept().unwrap().1, waiting.local_addr().unwrap());
            predecessor.ready().unwrap();
        }));
        assert!(Predecessor::connect(&deep).unwrap().is_none(), "no process is left");
    }

    #[test]
    fn a_successor_that_dies_before_it_is_ready_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, _) = handover(dir.path());
        let at = dir.path().to_owned();
        assert!(!beside(old, move || {
            drop(Predecessor::connect(&at).unwrap().unwrap());
            // A peer that does not follow the protocol is disconnected.
            let socket = SocketPath::of(&at).unwrap();
            UnixStream::connect(&socket.path).unwrap().write_all(b"x").unwrap();
        }));
    }
}
