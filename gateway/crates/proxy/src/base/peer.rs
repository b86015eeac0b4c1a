//! The peer of a connection, and the caller behind it.

use http::HeaderMap;
use http::header::HeaderName;
use std::net::IpAddr;
use tenon_snapshot::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The peer of an accepted socket. One for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// SHA-256 of the client certificate (DER) that the TLS listener verified.
    pub certificate_sha256: Option<[u8; 32]>,
}

impl Peer {
    #[must_use]
    pub fn plain(address: IpAddr) -> Self {
        Self { address, certificate_sha256: None }
    }

    /// The caller's address: the peer's own, unless the peer is a trusted proxy. Then it is the last address in `X-Forwarded-For` that is no
    /// trusted proxy: the addresses before it were written by a stranger.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap, trusted_proxies: &[Network]) -> IpAddr {
        let trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
        if trusted_proxies.is_empty() || !trusted(self.address) {
            return self.address;
        }
        let mut nearest = self.address;
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            for hop in value.as_bytes().rsplit(|byte| *byte == b',') {
                // An unreadable hop was not written by a trusted proxy: the hop that passed it on is the caller.
                let Some(address) = parse_hop(hop.trim_ascii()) else { return nearest };
                if !trusted(address) {
                    return address;
                }
                nearest = address;
            }
        }
        nearest
    }
}

/// An address, with or without a port, as proxies write them.
fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip()));
    address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let proxies: Vec<_> = ["10.0.0.0/8", "fd00::/8"].iter().map(|text| Network::parse(text).unwrap()).collect();
        Peer::plain(peer.parse().unwrap()).caller(&headers, &proxies).to_string()
    }

    #[test]
    fn only_a_proxy_of_ours_is_believed() {
        assert_eq!(caller("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(caller("10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("::ffff:10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("10.1.1.1", &[]), "10.1.1.1");
    }

    #[test]
    fn what_a_stranger_wrote_before_the_last_hop_counts_for_nothing() {
        assert_eq!(caller("10.1.1.1", &["10.9.9.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(caller("10.1.1.1", &["192.0.2.1", "198.51.100.1 , 10.2.2.2"]), "198.51.100.1");
        assert_eq!(caller("10.1.1.1", &["192.0.2.1, unknown, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(caller("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(caller("10.1.1.1", &["198.51.100.1:8080"]), "198.51.100.1");
    }
}
