//! Which addresses an endpoint may have: the guard against server-side request forgery (SSRF).
//!
//! The control plane judges the same way (`tenon.kit.ip_reach`), and `contracts/address-corpus.json` holds both to it. The table follows the
//! IANA special-purpose registries (RFC 6890); IPv6 outside of `2000::/3` and `fc00::/7` is never connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Public,
    /// The operator's own networks.
    Private,
    /// This machine.
    Loopback,
    /// Metadata services, link-local, multicast, reserved: nothing an endpoint may be at.
    Never,
}

/// Whether an endpoint may have this address. `private` = the endpoint may be in the operator's own network.
#[must_use]
pub fn is_allowed(address: IpAddr, private: bool) -> bool {
    match reach(address) {
        Reach::Public => true,
        Reach::Private | Reach::Loopback => private,
        Reach::Never => false,
    }
}

/// An IPv4 address inside an IPv6 one (mapped, or of NAT64) is judged in its place.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| reach_v6(v6), reach_v4),
    }
}

fn reach_v4(v4: Ipv4Addr) -> Reach {
    match v4.octets() {
        [127, ..] => Reach::Loopback,
        // this network, multicast, reserved, broadcast
        [0 | 224.., ..] => Reach::Never,
        // link-local, which is where metadata services and task credentials are
        [169, 254, ..] => Reach::Never,
        // protocol assignments, and Oracle Cloud's metadata service; 6to4 relays
        [192, 0, 0, _] | [192, 88, 99, _] => Reach::Never,
        // metadata services of Alibaba Cloud and Azure
        [100, 100, 100, 200] | [168, 63, 129, 16] => Reach::Never,
        // RFC 1918, carrier-grade NAT
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Reach::Private,
        // documentation, benchmarks
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(v6: Ipv6Addr) -> Reach {
    match v6.segments() {
        _ if v6.is_loopback() => Reach::Loopback,
        // metadata and credential services of AWS, Google Cloud, Scaleway, Linode
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] | [0xfd00, 0xa9fe, 0xa9fe, ..] => {
            Reach::Never
        }
        // protocol assignments (Teredo, benchmarks, ORCHID), 6to4
        [0x2001, 0..=0x1ff, ..] | [0x2002, ..] => Reach::Never,
        // unique local, documentation
        [0xfc00..=0xfdff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never,
    }
}

/// The IPv4 address that a connection to a mapped or NAT64 address reaches.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../../contracts/address-corpus.json")).unwrap()
    }

    #[test]
    fn addresses_are_judged_as_the_corpus_says() {
        let corpus = corpus();
        let addresses = corpus["addresses"].as_array().unwrap();
        assert!(addresses.len() > 150);
        for entry in addresses {
            let text = entry["address"].as_str().unwrap();
            let expected = match entry["reach"].as_str().unwrap() {
                "public" => Reach::Public,
                "private" => Reach::Private,
                "loopback" => Reach::Loopback,
                "never" => Reach::Never,
                other => panic!("{other}"),
            };
            let address = text.parse().unwrap();
            assert_eq!(reach(address), expected, "{text}: {}", entry["why"]);
            assert_eq!(is_allowed(address, false), expected == Reach::Public, "{text}");
            assert_eq!(is_allowed(address, true), expected != Reach::Never, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_addresses_are_resolved_as_names() {
        for entry in corpus()["not_addresses"].as_array().unwrap() {
            let text = entry["text"].as_str().unwrap();
            assert!(text.parse::<IpAddr>().is_err(), "{text}: {}", entry["why"]);
        }
    }
}
