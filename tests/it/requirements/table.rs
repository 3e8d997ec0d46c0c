//! That `docs/requirements.md` speaks of every row, and only of tests there are.

use std::{collections::BTreeMap, fs, path::Path};

/// Rows of the table: an id, and the names of its tests or a reason.
fn rows() -> BTreeMap<String, String> {
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/requirements.md");
    let table = fs::read_to_string(table).expect("docs/requirements.md");
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| G")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _requirement, shown] = cells[..] else {
            panic!("not three cells: {line}");
        };
        let twice = rows.insert(id.to_owned(), shown.to_owned());
        assert_eq!(twice, None, "{id} stands there twice");
    }
    rows
}

/// All sources under a directory.
fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *into += &fs::read_to_string(&path).expect("text");
        }
    }
}

pub(crate) fn source() -> String {
    source_of("src") + &source_of("tests/it")
}

/// All of a directory of this repository.
pub(crate) fn source_of(directory: &str) -> String {
    let mut text = String::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    sources(&directory, &mut text);
    text
}

/// Names in backticks, unless there is only a reason.
pub(crate) fn names(cell: &str) -> Vec<&str> {
    if cell.starts_with("none: ") {
        return Vec::new();
    }
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_requirement_is_in_the_table() {
    let rows = rows();
    for number in (1..=94).chain([102]) {
        let id = format!("G{number:02}");
        let shown = rows.get(&id).unwrap_or_else(|| panic!("{id} is missing"));
        let reason = shown.starts_with("none: ");
        assert!(
            reason || !names(shown).is_empty(),
            "{id} has neither tests nor a reason: {shown}"
        );
    }
}

#[test]
fn every_named_test_exists_and_carries_its_id() {
    let source = source();
    for (id, shown) in rows() {
        for name in names(&shown) {
            let declared = source.contains(&format!("fn {name}("));
            assert!(declared, "{id} names {name}, which does not exist");
        }
        let prefix = format!("fn {}_", id.to_lowercase());
        for line in source.lines().filter(|line| line.contains(&prefix)) {
            let name = line
                .split("fn ")
                .nth(1)
                .and_then(|rest| rest.split('(').next());
            let name = name.expect("a function");
            assert!(
                names(&shown).contains(&name),
                "{id} does not name its test {name}"
            );
        }
    }
}
