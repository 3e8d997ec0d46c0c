//! Whose turn it is: rendezvous hashing (Thaler and Ravishankar, "A Name-Based
//! Mapping Scheme for Rendezvous"). Every node computes the same order; a node
//! that joins or leaves moves only its own share. Pure.

use sha2::{Digest as _, Sha256};

use super::Incarnation;
use crate::store::leases::Duty;

/// How many nodes come before `me` for this duty: 0 is the first choice.
/// A node that is not among `nodes` comes last.
pub(super) fn rank(duty: &Duty, me: &Incarnation, nodes: &[Incarnation]) -> usize {
    let mine = (score(duty, me), me);
    if !nodes.contains(me) {
        return nodes.len();
    }
    nodes
        .iter()
        .filter(|node| (score(duty, node), *node) > mine)
        .count()
}

fn score(duty: &Duty, node: &Incarnation) -> u64 {
    let mut hash = Sha256::new();
    hash.update(duty.kind.as_str());
    hash.update([0]);
    hash.update(&*duty.subject);
    hash.update([0]);
    hash.update(node.as_str());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::leases::DutyKind;

    fn nodes(count: usize) -> Vec<Incarnation> {
        (0..count)
            .map(|n| Incarnation::named(&format!("node-{n}/{n:08x}")))
            .collect()
    }

    fn first<'a>(duty: &Duty, nodes: &'a [Incarnation]) -> &'a Incarnation {
        let firsts: Vec<_> = nodes
            .iter()
            .filter(|node| rank(duty, node, nodes) == 0)
            .collect();
        assert_eq!(firsts.len(), 1, "{duty}: {firsts:?}");
        firsts[0]
    }

    proptest! {
        #[test]
        fn ranks_are_an_order_and_leaving_moves_only_ones_own(count in 1usize..12, subject in "[a-z]{1,12}", gone in 0usize..12) {
            let all = nodes(count);
            let duty = Duty::new(DutyKind::Probe, &subject);
            let mut ranks: Vec<_> = all.iter().map(|node| rank(&duty, node, &all)).collect();
            let before = first(&duty, &all).clone();
            ranks.sort_unstable();
            prop_assert_eq!(ranks, (0..count).collect::<Vec<_>>());
            let left: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, node)| node.clone()).collect();
            if left.contains(&before) {
                prop_assert_eq!(first(&duty, &left), &before);
            }
        }
    }

    #[test]
    fn duties_are_spread_evenly() {
        let nodes = nodes(4);
        let mut counts = [0usize; 4];
        for n in 0..4000 {
            let duty = Duty::new(DutyKind::Probe, &format!("server/{n}"));
            let holder = first(&duty, &nodes);
            counts[nodes
                .iter()
                .position(|node| node == holder)
                .expect("one of them")] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
