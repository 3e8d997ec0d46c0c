use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

const ALL: [Policy; 5] = [
    Policy::P2c,
    Policy::RoundRobin,
    Policy::LeastInFlight,
    Policy::Weighted,
    Policy::Random,
];

fn in_flight(own: u32) -> Load {
    Load {
        own,
        others: 0,
        latency: Some(Duration::from_millis(10)),
    }
}

fn of_weights(policy: Policy, weights: &[u32]) -> Choices {
    Choices::new(policy, (0..).zip(weights.iter().copied()))
}

fn equal(policy: Policy, count: u32) -> Choices {
    Choices::new(policy, (0..count).map(|index| (index, 1)))
}

proptest! {
    #[test]
    fn the_pick_is_one_of_the_choices(
        replicas in prop::collection::btree_map(0u32..1000, (0u32..100, 0u32..10), 0..40),
        turn in any::<usize>(),
        seed in any::<u64>(),
    ) {
        for policy in ALL {
            let choices = Choices::new(policy, replicas.iter().map(|(&index, &(_, weight))| (index, weight)));
            let load = |index: u32| in_flight(replicas[&index].0);
            let pick = choices.pick(policy, turn, load, &mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(pick.is_none(), replicas.is_empty());
            prop_assert!(pick.is_none_or(|index| replicas.contains_key(&index)));
        }
    }

    #[test]
    fn two_choices_never_take_the_dearer_of_two(
        one in (0u32..50, 0u32..50, prop::option::of(1u64..1000)),
        two in (0u32..50, 0u32..50, prop::option::of(1u64..1000)),
        seed in any::<u64>(),
    ) {
        let loads = [one, two].map(|(own, others, latency)| Load {
            own,
            others,
            latency: latency.map(Duration::from_millis),
        });
        let choices = equal(Policy::P2c, 2);
        let load = |index: u32| loads[index as usize];
        let pick = choices.pick(Policy::P2c, 0, load, &mut StdRng::seed_from_u64(seed)).expect("two");
        let (picked, other) = (loads[pick as usize], loads[1 - pick as usize]);
        prop_assert!(picked.compare(&other) != Ordering::Greater);
    }

    #[test]
    fn least_in_flight_takes_a_minimum_of_a_few(
        counts in prop::collection::vec(0u32..9, 1..=SAMPLE),
        seed in any::<u64>(),
    ) {
        let choices = equal(Policy::LeastInFlight, u32::try_from(counts.len()).expect("few"));
        let load = |index: u32| in_flight(counts[index as usize]);
        let pick = choices.pick(Policy::LeastInFlight, 0, load, &mut StdRng::seed_from_u64(seed));
        let pick = pick.expect("some") as usize;
        prop_assert_eq!(Some(&counts[pick]), counts.iter().min());
    }

    #[test]
    fn weighted_shares_are_exactly_the_weights(weights in prop::collection::vec(0u32..1000, 1..60)) {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let Some(alias) = Alias::new(&weights) else {
            prop_assert!(weights.iter().all(|weight| *weight == weights[0]));
            return Ok(());
        };
        let expected: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * weights.len() as u64).collect();
        prop_assert_eq!(alias.shares().iter().sum::<u64>(), total * weights.len() as u64);
        prop_assert_eq!(alias.shares(), expected);
    }

    /// Throwing balls into bins: with two choices the fullest bin is a few above the mean.
    #[test]
    fn two_choices_keep_the_load_even(seed in any::<u64>()) {
        let mut random = StdRng::seed_from_u64(seed);
        let choices = equal(Policy::P2c, 50);
        let mut loads = [0u32; 50];
        for turn in 0..5000 {
            let load = |index: u32| in_flight(loads[index as usize]);
            let pick = choices.pick(Policy::P2c, turn, load, &mut random).expect("some");
            loads[pick as usize] += 1;
        }
        prop_assert!(loads.iter().all(|&load| (85..=108).contains(&load)), "{loads:?}");
    }
}

#[test]
fn round_robin_takes_each_in_turn() {
    let choices = Choices::new(Policy::RoundRobin, [(2, 1), (5, 1), (7, 1)]);
    let mut random = StdRng::seed_from_u64(1);
    let turns: Vec<_> = (0..6)
        .filter_map(|turn| choices.pick(Policy::RoundRobin, turn, |_| Load::default(), &mut random))
        .collect();
    assert_eq!(turns, [2, 5, 7, 2, 5, 7]);
}

#[test]
fn weights_are_shares_and_zero_takes_nothing() {
    let choices = of_weights(Policy::Weighted, &[3, 0, 1]);
    let mut random = StdRng::seed_from_u64(7);
    let mut counts = [0u32; 3];
    for turn in 0..8000 {
        let pick = choices.pick(Policy::Weighted, turn, |_| Load::default(), &mut random);
        counts[pick.expect("some") as usize] += 1;
    }
    assert_eq!(counts[1], 0);
    assert!((5600..6400).contains(&counts[0]), "{counts:?}");
}

#[test]
fn least_in_flight_of_many_avoids_the_loaded_half() {
    let choices = equal(Policy::LeastInFlight, 1000);
    let mut random = StdRng::seed_from_u64(3);
    let load = |index: u32| in_flight(if index < 500 { 100 } else { 0 });
    let picks =
        (0..1000).filter_map(|turn| choices.pick(Policy::LeastInFlight, turn, load, &mut random));
    // A sample of sixteen misses the idle half once in 65,536 times.
    assert!(picks.filter(|&pick| pick < 500).count() <= 2);
}

#[test]
fn slow_and_busy_replicas_cost_more() {
    let load = |own, others, latency: Option<u64>| Load {
        own,
        others,
        latency: latency.map(Duration::from_millis),
    };
    let ascending = [
        load(0, 50, None),
        load(0, 0, Some(10)),
        load(1, 1, Some(10)),
        load(0, 0, Some(100)),
        load(9, 9, Some(100)),
        load(1, 0, None),
        load(1, 1, None),
    ];
    for pair in ascending.windows(2) {
        assert_eq!(pair[0].compare(&pair[1]), Ordering::Less, "{pair:?}");
    }
}
