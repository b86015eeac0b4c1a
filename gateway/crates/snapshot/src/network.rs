//! A network in CIDR form, and whether an address lies in it.

use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// An IPv4 address that came through an IPv6 socket (`::ffff:a.b.c.d`) counts as an IPv4 address, on both sides of the
/// comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Parses `10.0.0.0/8`, `2001:db8::/32`, or one address. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        // The standard library refuses leading zeros, which some programs read as octal. `ipnet` does not.
        let address: IpAddr = address.parse().ok()?;
        let network = if text.contains('/') { text.parse().ok()? } else { IpNet::from(address) };
        Some(Self(unmapped(network)?.trunc()))
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`. `None` = the network is larger than all mapped addresses.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpAddr::V6(address) = network.addr() else {
        return Some(network);
    };
    match address.to_ipv4_mapped() {
        Some(v4) => Ipv4Net::new(v4, network.prefix_len().checked_sub(96)?).ok().map(IpNet::V4),
        None => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn within(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_lie_in_their_networks_and_in_no_other() {
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("10.1.2.3", "10.1.2.3") && !within("10.1.2.3", "10.1.2.4"));
        assert!(within("0.0.0.0/0", "255.1.2.3") && within("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!within("2001:db8::/32", "2001:db9::1") && within("::/0", "2001::1"));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert!(within("10.0.0.0/8", "::ffff:10.1.1.1") && within("::ffff:10.0.0.0/104", "10.1.1.1"));
        assert!(!within("::/0", "10.1.1.1") && !within("::/0", "::ffff:10.1.1.1") && !within("0.0.0.0/0", "::1"));
    }

    #[test]
    fn text_that_is_not_a_network_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::ffff:1.2.3.4/95",
            "010.0.0.0/8",
            "x",
            " 1.2.3.4",
        ] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_first_bits_decide(network: u32, address: u32, length in 0_u32..=32) {
            let parsed = Network::parse(&format!("{}/{length}", Ipv4Addr::from(network))).unwrap();
            let same = length == 0 || network >> (32 - length) == address >> (32 - length);
            prop_assert_eq!(parsed.contains(Ipv4Addr::from(address).into()), same);
            prop_assert_eq!(parsed.contains(Ipv4Addr::from(address).to_ipv6_mapped().into()), same);
        }

        #[test]
        fn the_first_bits_decide_in_ipv6_too(network: u128, address: u128, length in 0_u32..=128) {
            let (network, address) = (network | 1 << 127, address | 1 << 127); // never a mapped address
            let parsed = Network::parse(&format!("{}/{length}", Ipv6Addr::from(network))).unwrap();
            let same = length == 0 || network >> (128 - length) == address >> (128 - length);
            prop_assert_eq!(parsed.contains(Ipv6Addr::from(address).into()), same);
        }
    }
}
