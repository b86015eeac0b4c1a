//! Where upstream connections may go: names are resolved here, each address is looked at, and the one that was looked at is connected to.
//!
//! The control plane checks what an endpoint's URL says; only the gateway sees what a name resolves to, and it may resolve to another address
//! every time (DNS rebinding). So there is no second resolution between the check and the connect.

use crate::server::watch_for_death;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_snapshot::Origin;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The system does not tell how long a name is good for. Connections are few, so a look-up now and then costs nothing.
const FRESH: Duration = Duration::from_secs(5);
/// When the name service is away, what it said last is better than no upstream.
const USABLE: Duration = Duration::from_secs(300);
const NAMES_MAX: usize = 256;
/// Before the next address is tried beside the one that does not answer (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);
const ADDRESSES_MAX: usize = 6;

/// Metadata services that have addresses of their own; 169.254.169.254 is theirs too.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an upstream may have this address. `private` = the endpoint may stand in the operator's own network.
#[must_use]
pub fn is_allowed(address: IpAddr, private: bool) -> bool {
    match address {
        _ if METADATA.contains(&address) => false,
        IpAddr::V4(v4) => is_allowed_v4(v4, private),
        IpAddr::V6(v6) => inner_v4(v6).map_or_else(|| is_allowed_v6(v6, private), |v4| is_allowed(v4.into(), private)),
    }
}

fn is_allowed_v4(v4: Ipv4Addr, private: bool) -> bool {
    match v4.octets() {
        // this network, multicast, reserved, broadcast
        [0 | 224.., ..] => false,
        // loopback, RFC 1918, link-local, carrier-grade NAT
        [127 | 10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [169, 254, ..] | [100, 64..=127, ..] => private,
        // protocol assignments, documentation, benchmarks
        [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => private,
        _ => true,
    }
}

fn is_allowed_v6(v6: Ipv6Addr, private: bool) -> bool {
    let first = v6.segments()[0];
    match first {
        _ if v6.is_unspecified() || v6.is_multicast() => false,
        _ if v6.is_loopback() => private,
        // unique local, link-local, site-local, documentation, discard
        0xfc00..=0xfdff | 0xfe80..=0xfeff => private,
        0x2001 if v6.segments()[1] == 0x0db8 => private,
        0x0100 => private,
        _ => true,
    }
}

/// What a v4 stack behind these would connect to: mapped, compatible, NAT64 and 6to4 addresses.
fn inner_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(of(high, low)),
        _ => None,
    }
}

struct Known {
    addresses: Rc<[IpAddr]>,
    since: Instant,
}

/// One for each thread.
#[derive(Default)]
pub struct Resolver {
    known: RefCell<HashMap<String, Known, foldhash::fast::RandomState>>,
}

impl Resolver {
    /// A connection to an address that was found good.
    ///
    /// # Errors
    /// When the name cannot be resolved, leads to nothing that is allowed, or nobody answers.
    pub async fn connect(&self, origin: &Origin) -> io::Result<TcpStream> {
        let found = self.resolve(origin).await?;
        let allowed: Vec<_> =
            found.iter().filter(|address| is_allowed(**address, origin.private)).map(|a| SocketAddr::new(*a, origin.port)).collect();
        let stream = match &in_turn(allowed)[..] {
            [] => {
                let refused = "the endpoint's name leads to an address in a network that it may not stand in";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
            }
            [only] => TcpStream::connect(*only).await?,
            several => connect_first(several).await?,
        };
        stream.set_nodelay(true)?;
        watch_for_death(&stream)?;
        Ok(stream)
    }

    async fn resolve(&self, origin: &Origin) -> io::Result<Rc<[IpAddr]>> {
        if let Ok(address) = origin.host.parse::<IpAddr>() {
            return Ok([address].into());
        }
        let held = self.known.borrow().get(&origin.host).map(|known| (known.addresses.clone(), known.since.elapsed()));
        if let Some((addresses, age)) = &held
            && *age < FRESH
        {
            return Ok(addresses.clone());
        }
        // On the runtime's blocking threads: the system's resolver takes as long as it likes.
        match tokio::net::lookup_host((origin.host.as_str(), origin.port)).await {
            Ok(found) => {
                let addresses: Rc<[IpAddr]> = found.map(|address| address.ip()).take(ADDRESSES_MAX * 2).collect();
                self.keep(&origin.host, &addresses);
                Ok(addresses)
            }
            Err(error) => match held {
                Some((addresses, age)) if age < USABLE => Ok(addresses),
                _ => Err(error),
            },
        }
    }

    fn keep(&self, host: &str, addresses: &Rc<[IpAddr]>) {
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES_MAX {
            known.retain(|_, known| known.since.elapsed() < FRESH);
        }
        if known.len() < NAMES_MAX {
            known.insert(host.to_owned(), Known { addresses: addresses.clone(), since: Instant::now() });
        }
    }
}

/// Families take turns, in the order the system gave (RFC 8305 §4): when one family leads nowhere, the second try is of the other.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
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

/// The first that answers. Each has a head start before the next; one that is refused gives way at once.
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

    fn judged(text: &str) -> (bool, bool) {
        let address = text.parse().unwrap();
        (is_allowed(address, false), is_allowed(address, true))
    }

    #[test]
    fn addresses_are_judged_by_where_they_lead() {
        for public in
            ["93.184.216.34", "192.254.1.1", "169.168.1.1", "172.32.0.1", "100.128.0.1", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert_eq!(judged(public), (true, true), "{public}");
        }
        let private = [
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "fd12::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::7f00:1",
        ];
        for private in private {
            assert_eq!(judged(private), (false, true), "{private}");
        }
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "::",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert_eq!(judged(never), (false, false), "{never}");
        }
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 1)).collect::<Vec<_>>();
        assert_eq!(in_turn(of(&["::1", "::2", "1.1.1.1"])), of(&["::1", "1.1.1.1", "::2"]));
        assert_eq!(in_turn(of(&[])), of(&[]));
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn a_name_is_connected_to_only_where_it_may_lead() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = |private| Origin { tls: false, host: "localhost".into(), port: listener.local_addr().unwrap().port(), private };
        block_on(async {
            let resolver = Resolver::default();
            assert!(resolver.connect(&origin(true)).await.is_ok(), "another family's loopback is tried too");
            let error = resolver.connect(&origin(false)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(resolver.known.borrow().len(), 1, "the second look was at what is known");
        });
    }

    #[test]
    fn an_address_that_refuses_gives_way_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let begun = Instant::now();
        let stream = block_on(connect_first(&[dead, listener.local_addr().unwrap()])).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(begun.elapsed() < HEAD_START);
        assert!(block_on(connect_first(&[dead, dead])).is_err());
    }
}
