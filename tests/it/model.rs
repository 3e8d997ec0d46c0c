//! Models of what nodes do with the store, explored exhaustively: every order
//! of steps, a pause at any point, crashes, commands that are slow or whose
//! outcome nobody learns, a store that is away or comes back empty.
//!
//! A model is small enough to be explored in seconds and names the scripts
//! that its steps stand for, as they name it. Leaving out what keeps it right
//! has to be found out, or the model would prove nothing.

mod cache;
mod conformance;
mod explore;
mod lease;

use cache::{Cache, OUT_OF_DATE, REPLACED, TOO_OLD, TWO_FETCHES};
use explore::{Counterexample, Explored, Model, NEVER_ENDS, explore};
use lease::{LATE_WRITE, Leases, OVERLAP, STALE_WRITE};

fn holds(name: &str, model: &impl Model) -> Explored {
    match explore(model) {
        Ok(explored) => {
            println!(
                "{name}: {} states, {} steps",
                explored.states, explored.steps
            );
            explored
        }
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

fn fails(name: &str, model: &impl Model) -> Counterexample {
    match explore(model) {
        Ok(explored) => panic!("{name}: not noticed in {} states", explored.states),
        Err(counterexample) => {
            println!("{name}: {}", counterexample.what);
            counterexample
        }
    }
}

const NO_FAULTS: lease::Faults = lease::Faults {
    pauses: 0,
    crashes: 0,
    slow: 0,
    outages: 0,
    redefined: 0,
    stand_ins: 0,
    writes: 2,
};

fn leases(nodes: usize, faults: lease::Faults) -> Leases {
    Leases {
        nodes,
        faults,
        guards: lease::GUARDED,
    }
}

#[test]
fn leases_hold_while_nodes_pause_and_commands_are_slow() {
    let paused = lease::Faults {
        pauses: 1,
        slow: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, pause", &leases(2, paused));
    let once = lease::Faults {
        writes: 1,
        ..paused
    };
    holds("leases, 3 nodes, pause", &leases(3, once));
}

#[test]
fn leases_hold_while_others_ask() {
    let asked = lease::Faults {
        stand_ins: 1,
        ..NO_FAULTS
    };
    let paused = lease::Faults { pauses: 1, ..asked };
    holds("leases, 2 nodes, stand-in, pause", &leases(2, paused));
    let slow = lease::Faults { slow: 2, ..asked };
    holds("leases, 2 nodes, stand-in, slow", &leases(2, slow));
    let once = lease::Faults {
        writes: 1,
        ..paused
    };
    holds("leases, 3 nodes, stand-in, pause", &leases(3, once));
}

#[test]
fn leases_hold_while_nodes_crash() {
    let faults = lease::Faults {
        crashes: 1,
        slow: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, crash", &leases(2, faults));
}

#[test]
fn leases_hold_while_the_store_is_away_or_forgets() {
    let faults = lease::Faults {
        pauses: 1,
        outages: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, outage", &leases(2, faults));
}

#[test]
fn leases_hold_while_duties_are_defined_anew() {
    let paused = lease::Faults {
        pauses: 1,
        redefined: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, duty anew, pause", &leases(2, paused));
    let late = lease::Faults {
        slow: 1,
        redefined: 1,
        stand_ins: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, duty anew, slow", &leases(2, late));
}

#[test]
fn every_guard_of_leases_is_needed() {
    let asked = lease::Faults {
        stand_ins: 1,
        ..NO_FAULTS
    };
    let paused = lease::Faults {
        pauses: 1,
        slow: 1,
        ..asked
    };
    let away = lease::Faults {
        outages: 1,
        ..paused
    };
    let redefined = lease::Faults {
        slow: 1,
        redefined: 1,
        ..asked
    };
    type Without = fn(&mut lease::Guards);
    let without: [(&str, Without, lease::Faults, &str); 9] = [
        (
            "fenced writes",
            |g| g.writes_are_fenced = false,
            paused,
            STALE_WRITE,
        ),
        (
            "compared holders",
            |g| g.holders_are_compared = false,
            paused,
            OVERLAP,
        ),
        ("a margin", |g| g.margin = 0, paused, LATE_WRITE),
        (
            "time from before",
            |g| g.counted_from_before = false,
            paused,
            OVERLAP,
        ),
        (
            "an end of work",
            |g| g.stops_in_time = false,
            paused,
            OVERLAP,
        ),
        (
            "fences by the clock",
            |g| g.fences_are_times = false,
            away,
            STALE_WRITE,
        ),
        (
            "work ended first",
            |g| g.stopped_before_release = false,
            paused,
            OVERLAP,
        ),
        (
            "telling the holder",
            |g| g.holder_is_told = false,
            asked,
            NEVER_ENDS,
        ),
        (
            "named fences",
            |g| g.releases_name_their_fence = false,
            redefined,
            OVERLAP,
        ),
    ];
    for (name, leave_out, faults, what) in without {
        let mut model = leases(2, faults);
        leave_out(&mut model.guards);
        let found = fails(&format!("leases without {name}"), &model);
        assert_eq!(found.what, what, "{name}: {found}");
    }
}

/// Two requests, and all goes well.
const CALM: cache::Faults = cache::Faults {
    asks: 2,
    changes: 0,
    pauses: 0,
    crashes: 0,
    slow: 0,
    lost: 0,
    unknown: 0,
    outages: 0,
};

fn cached(nodes: usize, faults: cache::Faults) -> Cache {
    Cache {
        nodes,
        faults,
        guards: cache::GUARDED,
        fetches_once: false,
    }
}

#[test]
fn a_fleet_fetches_once() {
    let faults = cache::Faults { asks: 3, ..CALM };
    let model = Cache {
        fetches_once: true,
        ..cached(3, faults)
    };
    holds("cache, 3 nodes, 3 requests", &model);
}

#[test]
fn the_cache_holds_while_the_upstream_changes() {
    let faults = cache::Faults { changes: 2, ..CALM };
    holds("cache, 2 nodes, 2 changes", &cached(2, faults));
    let faults = cache::Faults { changes: 1, ..CALM };
    holds("cache, 3 nodes, a change", &cached(3, faults));
}

#[test]
fn the_cache_holds_while_nodes_pause_and_crash() {
    let faults = cache::Faults {
        changes: 1,
        pauses: 1,
        slow: 1,
        ..CALM
    };
    holds("cache, 2 nodes, a pause", &cached(2, faults));
    let faults = cache::Faults {
        asks: 3,
        crashes: 1,
        ..CALM
    };
    holds("cache, 3 nodes, a crash", &cached(3, faults));
}

#[test]
fn the_cache_holds_while_messages_and_answers_are_lost() {
    let faults = cache::Faults {
        changes: 1,
        crashes: 1,
        lost: 1,
        ..CALM
    };
    holds("cache, 2 nodes, lost messages", &cached(2, faults));
    let faults = cache::Faults {
        changes: 1,
        slow: 2,
        unknown: 1,
        ..CALM
    };
    holds("cache, 2 nodes, unknown outcomes", &cached(2, faults));
}

#[test]
fn the_cache_holds_while_the_store_is_away_or_forgets() {
    let faults = cache::Faults {
        changes: 1,
        outages: 1,
        ..CALM
    };
    holds("cache, 2 nodes, an outage", &cached(2, faults));
    let faults = cache::Faults {
        asks: 3,
        slow: 1,
        ..faults
    };
    holds("cache, 1 node, an outage", &cached(1, faults));
}

#[test]
fn every_guard_of_the_cache_is_needed() {
    let changed = cache::Faults { changes: 1, ..CALM };
    let slow = cache::Faults { slow: 3, ..CALM };
    let crashed = cache::Faults { crashes: 1, ..CALM };
    let lost = cache::Faults { lost: 1, ..changed };
    let unknown = cache::Faults {
        slow: 3,
        unknown: 1,
        ..changed
    };
    let away = cache::Faults {
        asks: 3,
        slow: 1,
        outages: 1,
        ..changed
    };
    type Without = fn(&mut cache::Guards);
    let without: [(&str, Without, cache::Faults, &str); 10] = [
        (
            "fenced writes",
            |g| g.writes_are_fenced = false,
            slow,
            REPLACED,
        ),
        (
            "fences from before",
            |g| g.fenced_before_fetch = false,
            changed,
            TOO_OLD,
        ),
        (
            "a second look",
            |g| g.looks_again = false,
            CALM,
            TWO_FETCHES,
        ),
        (
            "an end of locks",
            |g| g.locks_end = false,
            crashed,
            NEVER_ENDS,
        ),
        (
            "looks while waiting",
            |g| g.waiters_look = false,
            crashed,
            NEVER_ENDS,
        ),
        (
            "heed of gaps",
            |g| g.gaps_are_heeded = false,
            lost,
            OUT_OF_DATE,
        ),
        (
            "heed of gaps in flight",
            |g| g.flights_heed_gaps = false,
            lost,
            OUT_OF_DATE,
        ),
        (
            "memory of requests",
            |g| g.requests_remember = false,
            changed,
            TOO_OLD,
        ),
        (
            "compared copies",
            |g| g.copies_are_compared = false,
            unknown,
            REPLACED,
        ),
        (
            "ranks by reading",
            |g| g.ranked_by_reading = false,
            away,
            OUT_OF_DATE,
        ),
    ];
    for (name, leave_out, faults, what) in without {
        let mut model = cached(2, faults);
        model.fetches_once = what == TWO_FETCHES;
        leave_out(&mut model.guards);
        let found = fails(&format!("cache without {name}"), &model);
        assert_eq!(found.what, what, "{name}: {found}");
    }
}

/// Each script of a model names it, and each script that a model names is there.
#[test]
fn models_and_scripts_name_each_other() {
    let models = [
        ("cache.rs", include_str!("model/cache.rs")),
        ("lease.rs", include_str!("model/lease.rs")),
    ];
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis/scripts");
    let mut named = 0;
    for script in std::fs::read_dir(scripts).expect("the scripts") {
        let path = script.expect("a file").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let text = std::fs::read_to_string(&path).expect("text");
        for (model, steps) in models {
            let line = format!("-- Modelled in tests/it/model/{model}.\n");
            assert_eq!(
                text.contains(&line),
                steps.contains(&format!("`{name}`")),
                "{name} and {model}"
            );
            named += usize::from(text.contains(&line));
        }
    }
    assert!(named >= 10, "{named}");
}
