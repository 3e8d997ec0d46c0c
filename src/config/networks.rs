//! Addresses and networks, such as those of trusted proxies.

use std::net::IpAddr;

use super::{
    tree::Located,
    values::{self, Problem},
};

/// An address, or all that begin like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that count.
    prefix: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix
                .trim()
                .parse()
                .ok()
                .filter(|prefix| *prefix <= bits)?,
            None => bits,
        };
        Some(Self { address, prefix })
    }

    /// Whether `address` (not an IPv4 address written as IPv6) is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

pub(super) fn networks(located: &Located) -> Result<Vec<Network>, Problem> {
    let read = |text: String| {
        Network::parse(&text).ok_or_else(|| {
            Problem::new(format!(
                "expected addresses or networks such as \"10.0.0.7\" or \"10.0.0.0/8\", found {text:?}"
            ))
        })
    };
    values::texts(located)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_alike() {
        let network = |text| Network::parse(text).expect(text);
        let address = |text: &str| -> IpAddr { text.parse().expect(text) };
        for (of, inside, outside) in [
            ("10.0.0.0/8", "10.9.8.7", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
        ] {
            assert!(network(of).contains(address(inside)), "{of} {inside}");
            assert!(!network(of).contains(address(outside)), "{of} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "host", "10.0.0.0/x", "::/129"] {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
    }
}
