//! That `docs/redis-loss.md` speaks of every row of the contract, and only of tests there are.

use std::{collections::BTreeMap, fs};

use crate::requirements::table::{names, source};

const ROWS: [&str; 9] = [
    "start",
    "calls",
    "lists",
    "balancing",
    "health",
    "legacy sessions",
    "rate limits",
    "deployments",
    "`/readyz`",
];

/// Of each row what shows it while Redis is lost, and when it is back.
fn rows() -> BTreeMap<String, [String; 2]> {
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis-loss.md");
    let table = fs::read_to_string(table).expect("docs/redis-loss.md");
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [row, _lost, shown, _back, shown_back] = cells[..] else {
                panic!("not five cells: {line}");
            };
            (row.to_owned(), [shown.to_owned(), shown_back.to_owned()])
        })
        .collect()
}

#[test]
fn every_cell_of_the_contract_has_a_test_or_a_reason() {
    let (rows, source) = (rows(), source());
    assert_eq!(rows.len(), ROWS.len(), "{rows:?}");
    for row in ROWS {
        for cell in &rows[row] {
            let names = names(cell);
            assert!(
                !names.is_empty() || cell.starts_with("none: "),
                "{row} is shown by nothing: {cell}"
            );
            for name in names {
                let declared = source.contains(&format!("fn {name}("));
                assert!(declared, "{row} names {name}, which does not exist");
            }
        }
    }
}
