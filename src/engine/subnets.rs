//! The addresses of the fleet's servers, as the engine tells them: from there
//! nobody has any business with a node. Asked for every request, so reading it
//! takes no lock, and next to nothing where there are none.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;

use crate::config::Network;

/// The subnets of the networks that servers are in.
#[derive(Debug, Default)]
pub struct Subnets {
    is_any: AtomicBool,
    known: ArcSwap<Vec<Network>>,
}

impl Subnets {
    /// Whether a server may have that address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        if !self.is_any.load(Ordering::Acquire) {
            return false;
        }
        let address = address.to_canonical();
        let known = self.known.load();
        known.iter().any(|subnet| subnet.contains(address))
    }

    /// Makes these the ones that are known.
    pub fn set(&self, subnets: Vec<Network>) {
        if *self.known.load_full() == subnets {
            return;
        }
        let is_any = !subnets.is_empty();
        self.known.store(subnets.into());
        self.is_any.store(is_any, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_servers_are_contained_however_they_are_written() {
        let subnets = Subnets::default();
        let contain = |text: &str| subnets.contain(text.parse().unwrap());
        assert!(!contain("172.18.0.3"));
        let networks = ["172.18.0.0/16", "fd00:1::/64"].map(|text| Network::parse(text).unwrap());
        subnets.set(networks.to_vec());
        for inside in ["172.18.0.3", "::ffff:172.18.0.3", "fd00:1::5"] {
            assert!(contain(inside), "{inside}");
        }
        for outside in ["172.19.0.3", "127.0.0.1", "::1", "fd00:2::5"] {
            assert!(!contain(outside), "{outside}");
        }
        subnets.set(Vec::new());
        assert!(!contain("172.18.0.3"));
    }
}
