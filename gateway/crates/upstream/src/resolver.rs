//! Resolves endpoints' names, checks each address, and connects to an address that was checked.
//!
//! The control plane checks what an endpoint's URL says; only the gateway sees what a name resolves to, and it may resolve to another address
//! every time (DNS rebinding). So there is no second resolution between the check and the connect.

use crate::addresses::is_allowed;
use crate::sockets::detect_dead_peer;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_snapshot::Origin;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The system does not say how long a name is valid. Connections are few, so a look-up now and then costs nothing.
const FRESH: Duration = Duration::from_secs(5);
/// When the name service cannot be reached, its last answer is better than no endpoint.
const USABLE: Duration = Duration::from_secs(300);
const NAMES_MAX: usize = 256;
/// Before the next address is tried beside the one that does not answer (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
const ADDRESSES_MAX: usize = 6;

struct Resolved {
    addresses: Rc<[IpAddr]>,
    at: Instant,
}

/// One thread's, with its cache of names.
#[derive(Default)]
pub struct Resolver {
    cache: RefCell<HashMap<String, Resolved, foldhash::fast::RandomState>>,
}

impl Resolver {
    /// A connection to an address that the endpoint may have.
    ///
    /// # Errors
    /// When the name cannot be resolved, has no allowed address, or nothing answers.
    pub async fn connect(&self, origin: &Origin) -> io::Result<TcpStream> {
        let addresses = self.resolve(origin).await?;
        let allowed = addresses.iter().filter(|address| is_allowed(**address, origin.private));
        let allowed: Vec<_> = allowed.map(|address| SocketAddr::new(*address, origin.port)).collect();
        let stream = match &interleave_families(allowed)[..] {
            [] => {
                let refused = "the endpoint's name resolves to an address that the endpoint may not have";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
            }
            [only] => TcpStream::connect(*only).await?,
            several => connect_first(several).await?,
        };
        stream.set_nodelay(true)?;
        detect_dead_peer(&stream)?;
        Ok(stream)
    }

    async fn resolve(&self, origin: &Origin) -> io::Result<Rc<[IpAddr]>> {
        if let Ok(address) = origin.host.parse::<IpAddr>() {
            return Ok([address].into());
        }
        let cached = self.cache.borrow().get(&origin.host).map(|resolved| (resolved.addresses.clone(), resolved.at.elapsed()));
        if let Some((addresses, age)) = &cached
            && *age < FRESH
        {
            return Ok(addresses.clone());
        }
        // On the runtime's blocking threads: the system's resolver may take long.
        match tokio::net::lookup_host((origin.host.as_str(), origin.port)).await {
            Ok(resolved) => {
                let addresses: Rc<[IpAddr]> = resolved.map(|address| address.ip()).take(ADDRESSES_MAX * 2).collect();
                self.keep(&origin.host, &addresses);
                Ok(addresses)
            }
            Err(error) => match cached {
                Some((addresses, age)) if age < USABLE => Ok(addresses),
                _ => Err(error),
            },
        }
    }

    fn keep(&self, host: &str, addresses: &Rc<[IpAddr]>) {
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= NAMES_MAX {
            cache.retain(|_, resolved| resolved.at.elapsed() < FRESH);
        }
        if cache.len() < NAMES_MAX {
            cache.insert(host.to_owned(), Resolved { addresses: addresses.clone(), at: Instant::now() });
        }
    }
}

/// The address families take turns, in the order the system gave (RFC 8305 §4): when one family cannot be reached, the second try is the other.
fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    these.reverse();
    others.reverse();
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX {
        let (this, other) = (these.pop(), others.pop());
        if this.is_none() && other.is_none() {
            break;
        }
        turns.extend(this.into_iter().chain(other));
    }
    turns
}

/// Connects to the first address that answers. Each has a head start before the next is tried; a refused one is followed at once.
async fn connect_first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut running = JoinSet::new();
    let mut waiting = addresses.iter();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => drop(running.spawn_local(TcpStream::connect(*address))),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        tokio::select! {
            Some(ended) = running.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            },
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 1)).collect::<Vec<_>>();
        assert_eq!(interleave_families(of(&["::1", "::2", "1.1.1.1"])), of(&["::1", "1.1.1.1", "::2"]));
        assert_eq!(interleave_families(of(&[])), of(&[]));
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn a_name_is_connected_to_only_at_allowed_addresses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = |private| Origin { tls: false, host: "localhost".into(), port: listener.local_addr().unwrap().port(), private };
        block_on(async {
            let resolver = Resolver::default();
            assert!(resolver.connect(&origin(true)).await.is_ok(), "another family's loopback is tried too");
            let error = resolver.connect(&origin(false)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(resolver.cache.borrow().len(), 1, "the second look-up was answered from the cache");
        });
    }

    #[test]
    fn a_refused_address_is_followed_by_the_next_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let begun = Instant::now();
        let stream = block_on(connect_first(&[dead, listener.local_addr().unwrap()])).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(begun.elapsed() < HEAD_START);
        assert!(block_on(connect_first(&[dead, dead])).is_err());
    }
}
