//! A network in CIDR form, and whether an address lies in it.

use std::net::IpAddr;

/// An IPv4 address that came through an IPv6 socket (`::ffff:a.b.c.d`) is an IPv4 address, on both sides of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    is_v4: bool,
    bits: u128,
    mask: u128,
}

impl Network {
    /// `10.0.0.0/8`, `2001:db8::/32`, or one address. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(parse_length(length)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let written_v4 = address.is_ipv4();
        let (is_v4, bits) = number(address);
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        let shift = if is_v4 && !written_v4 { 96 } else { 0 };
        let width: u32 = if is_v4 { 32 } else { 128 };
        let length = length.map_or(Some(width), |length| length.checked_sub(shift)).filter(|length| *length <= width)?;
        let full = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
        let mask = full & full.checked_shl(width - length).unwrap_or(0);
        Some(Self { is_v4, bits: bits & mask, mask })
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (is_v4, bits) = number(address);
        is_v4 == self.is_v4 && bits & self.mask == self.bits
    }
}

fn parse_length(text: &str) -> Option<u32> {
    let formed = !text.is_empty() && text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| formed)
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(v4) => (true, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or((false, u128::from(v6)), |v4| (true, u128::from(u32::from(v4)))),
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
    fn what_is_no_network_is_refused() {
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
        fn of_ipv6_too(network: u128, address: u128, length in 0_u32..=128) {
            let (network, address) = (network | 1 << 127, address | 1 << 127); // never a mapped address
            let parsed = Network::parse(&format!("{}/{length}", Ipv6Addr::from(network))).unwrap();
            let same = length == 0 || network >> (128 - length) == address >> (128 - length);
            prop_assert_eq!(parsed.contains(Ipv6Addr::from(address).into()), same);
        }
    }
}
