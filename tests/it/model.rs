//! Models of what nodes do with the store, explored exhaustively: every order
//! of steps, a pause at any point, crashes, commands that are slow or whose
//! outcome nobody learns, a store that is away or comes back empty.
//!
//! A model is small enough to be explored in seconds and names the scripts
//! that its steps stand for, as they name it. Leaving out what keeps it right
//! has to be found out, or the model would prove nothing.

mod explore;
mod lease;

use explore::{Counterexample, Explored, Model, NEVER_ENDS, explore};
use lease::{Faults, GUARDED, Guards, LATE_WRITE, Leases, OVERLAP, STALE_WRITE};

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

const NO_FAULTS: Faults = Faults {
    pauses: 0,
    crashes: 0,
    slow: 0,
    outages: 0,
    redefined: 0,
    stand_ins: 0,
    writes: 2,
};

fn leases(nodes: usize, faults: Faults) -> Leases {
    Leases {
        nodes,
        faults,
        guards: GUARDED,
    }
}

#[test]
fn leases_hold_while_nodes_pause() {
    let faults = Faults {
        pauses: 2,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, pauses", &leases(2, faults));
    let faults = Faults {
        pauses: 1,
        slow: 1,
        ..NO_FAULTS
    };
    holds("leases, 3 nodes, a pause", &leases(3, faults));
}

#[test]
fn leases_hold_while_commands_are_slow_and_others_ask() {
    let faults = Faults {
        pauses: 1,
        slow: 1,
        stand_ins: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, stand-ins", &leases(2, faults));
}

#[test]
fn leases_hold_while_nodes_crash() {
    let faults = Faults {
        crashes: 1,
        slow: 1,
        stand_ins: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, a crash", &leases(2, faults));
}

#[test]
fn leases_hold_while_the_store_is_away_or_forgets() {
    let faults = Faults {
        pauses: 1,
        outages: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, an outage", &leases(2, faults));
}

#[test]
fn leases_hold_while_duties_are_defined_anew() {
    let faults = Faults {
        pauses: 1,
        slow: 1,
        redefined: 1,
        ..NO_FAULTS
    };
    holds("leases, 2 nodes, a duty defined anew", &leases(2, faults));
}

#[test]
fn every_guard_of_leases_is_needed() {
    let paused = Faults {
        pauses: 1,
        slow: 1,
        stand_ins: 1,
        ..NO_FAULTS
    };
    let away = Faults {
        outages: 1,
        ..paused
    };
    let redefined = Faults {
        redefined: 1,
        ..paused
    };
    type Without = fn(&mut Guards);
    let without: [(&str, Without, Faults, &str); 9] = [
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
            paused,
            NEVER_ENDS,
        ),
        (
            "commands in order",
            |g| g.commands_keep_order = false,
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

/// Each script of a model names it, and each script that a model names is there.
#[test]
fn models_and_scripts_name_each_other() {
    let models = [("lease.rs", include_str!("model/lease.rs"))];
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
    assert!(named >= 4, "{named}");
}
