//! Reads one table key by key, remembers which keys there are, and collects
//! every finding instead of stopping at the first.

use super::{
    error::Finding,
    tree::{Located, Place, Table, Value},
    values::{self, Problem},
};

/// What came to light while reading.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<(Place, Finding)>,
    warnings: Vec<(Place, Finding)>,
    /// Every key that exists, with `*` for names, e.g. `servers.*.url`.
    pub(crate) known: Vec<String>,
    /// Settings that are not the default.
    pub(crate) changed: Vec<Setting>,
    unknown: Vec<Unknown>,
}

/// A setting that is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Which key, e.g. `node.listen`.
    pub key: String,
    /// Its value as it was written; redacted when it is a secret.
    pub value: String,
    /// Where it was written.
    pub place: String,
}

#[derive(Debug)]
struct Unknown {
    section: String,
    pattern: String,
    key: String,
    place: Place,
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        let finding = Finding::new(place, key, message);
        self.errors.push((place.clone(), finding));
    }

    pub(crate) fn warn(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        let finding = Finding::new(place, key, message);
        self.warnings.push((place.clone(), finding));
    }

    /// Errors and warnings, each from top to bottom.
    pub(crate) fn in_order(self) -> (Vec<Finding>, Vec<Finding>) {
        let sorted = |mut findings: Vec<(Place, Finding)>| {
            findings.sort_by(|(one, _), (other, _)| one.cmp(other));
            findings.into_iter().map(|(_, finding)| finding).collect()
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    /// Turns unknown keys into errors, now that all known ones have been seen.
    pub(crate) fn settle_unknown(&mut self) {
        for unknown in std::mem::take(&mut self.unknown) {
            let message = match self.nearest(&unknown) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => format!("unknown key; {}", self.siblings(&unknown)),
            };
            self.error(
                &unknown.place,
                join(&unknown.section, &unknown.key),
                message,
            );
        }
    }

    /// Turns unknown keys into warnings, for formats that others add to.
    pub(crate) fn tolerate_unknown(&mut self) {
        for unknown in std::mem::take(&mut self.unknown) {
            let message = match self.nearest(&unknown) {
                Some(known) => format!("is not known and has no effect; did you mean `{known}`?"),
                None => "is not known and has no effect".to_owned(),
            };
            self.warn(
                &unknown.place,
                join(&unknown.section, &unknown.key),
                message,
            );
        }
    }

    /// The known key that was probably meant: a similar one in the same
    /// section, or one of that very name elsewhere.
    fn nearest(&self, unknown: &Unknown) -> Option<String> {
        let wanted = unknown.key.to_lowercase().replace('-', "_");
        let similar = self
            .known_in(&unknown.pattern)
            .map(|known| {
                (
                    strsim::normalized_damerau_levenshtein(&wanted, known),
                    known,
                )
            })
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, known)| join(&unknown.section, known));
        similar.or_else(|| {
            let elsewhere = |known: &&String| known.rsplit('.').next() == Some(&wanted);
            self.known.iter().find(elsewhere).cloned()
        })
    }

    fn siblings(&self, unknown: &Unknown) -> String {
        let keys: Vec<_> = self.known_in(&unknown.pattern).collect();
        format!("known here are {}", keys.join(", "))
    }

    /// First segments below `pattern`, each once.
    fn known_in(&self, pattern: &str) -> impl Iterator<Item = &str> {
        let mut seen = std::collections::BTreeSet::new();
        self.known
            .iter()
            .filter_map(move |known| {
                let rest = if pattern.is_empty() {
                    known
                } else {
                    known.strip_prefix(pattern)?.strip_prefix('.')?
                };
                rest.split('.').next()
            })
            .filter(move |key| seen.insert(*key))
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// One table, being read.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// Its path, e.g. `servers.demo`.
    path: String,
    /// The same with `*` for names.
    pattern: String,
    /// Where it was written; `None`: it was not.
    pub(crate) place: Option<Place>,
    table: Table,
    asked: Vec<String>,
    pub(crate) findings: &'a mut Findings,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(crate) fn root(table: Table, findings: &'a mut Findings) -> Self {
        Self {
            path: String::new(),
            pattern: String::new(),
            place: None,
            table,
            asked: Vec::new(),
            findings,
        }
    }

    /// The section at `key`; empty when it was not written.
    pub(crate) fn section(&mut self, key: &str) -> Section<'_> {
        let located = self.take(key);
        let path = self.path_of(key);
        let pattern = join(&self.pattern, key);
        Section::of(located, path, pattern, self.findings)
    }

    /// Sections under names that are not ours, e.g. those of `[servers]`.
    pub(crate) fn named(&mut self, name: &str, located: Located) -> Section<'_> {
        let path = self.path_of(name);
        let pattern = join(&self.pattern, "*");
        Section::of(Some(located), path, pattern, self.findings)
    }

    /// An empty section under any name, to learn its keys from.
    pub(crate) fn any_name<'f>(&self, findings: &'f mut Findings) -> Section<'f> {
        let pattern = join(&self.pattern, "*");
        Section::of(None, pattern.clone(), pattern, findings)
    }

    fn of(
        located: Option<Located>,
        path: String,
        pattern: String,
        findings: &'a mut Findings,
    ) -> Self {
        let place = located.as_ref().map(|located| located.place.clone());
        let table = match located {
            None => Table::default(),
            Some(Located {
                value: Value::Table(table),
                ..
            }) => table,
            Some(other) => {
                let found = format!("expected a table, found {}", other.shown());
                findings.error(&other.place, path.clone(), found);
                Table::default()
            }
        };
        Self {
            path,
            pattern,
            place,
            table,
            asked: Vec::new(),
            findings,
        }
    }

    /// `key` with the path of this section before it.
    pub(crate) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the key was written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Whether anything was written in this section.
    pub(crate) fn is_written(&self) -> bool {
        self.place.is_some()
    }

    /// Where the key was written, else where the section was.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        let written = self.table.0.iter().find(|entry| entry.key == key);
        written
            .map(|entry| entry.value.place.clone())
            .or_else(|| self.place.clone())
    }

    /// Where a key of a section below was written.
    pub(crate) fn place_within(&self, section: &str, key: &str) -> Option<Place> {
        match &self.table.get(section)?.value {
            Value::Table(table) => table.get(key).map(|located| located.place.clone()),
            _ => None,
        }
    }

    /// The value as it was written, for what no parser of [`values`] covers.
    pub(crate) fn take(&mut self, key: &str) -> Option<Located> {
        self.know(key);
        self.table.get(key).cloned()
    }

    /// All entries, whatever their keys.
    pub(crate) fn take_all(&mut self) -> Table {
        let table = std::mem::take(&mut self.table);
        Table(
            table
                .0
                .into_iter()
                .filter(|entry| entry.value.value != Value::Null)
                .collect(),
        )
    }

    /// Notes that a key exists.
    pub(crate) fn know(&mut self, key: &str) {
        self.asked.push(key.to_owned());
        self.findings.known.push(join(&self.pattern, key));
    }

    /// The value of a key, its default when it is absent or wrong.
    pub(crate) fn read<T: PartialEq>(
        &mut self,
        key: &str,
        default: T,
        parse: impl Fn(&Located) -> Result<T, Problem>,
    ) -> T {
        let Some(located) = self.take(key) else {
            return default;
        };
        match parse(&located) {
            Ok(value) => {
                if value != default {
                    self.changed(key, located.shown(), &located.place);
                }
                value
            }
            Err(problem) => {
                self.report(key, &located, problem);
                default
            }
        }
    }

    /// The value of a key that has no default.
    pub(crate) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&Located) -> Result<T, Problem>,
    ) -> Option<T> {
        let located = self.take(key)?;
        match parse(&located) {
            Ok(value) => {
                self.changed(key, located.shown(), &located.place);
                Some(value)
            }
            Err(problem) => {
                self.report(key, &located, problem);
                None
            }
        }
    }

    /// A secret: the value of `key`, or the content of the file at `key_file`.
    pub(crate) fn secret(&mut self, key: &str) -> Option<(String, Place)> {
        let file_key = format!("{key}_file");
        let value = self.take(key);
        let file = self.take(&file_key);
        match (value, file) {
            (None, None) => None,
            (Some(_), Some(file)) => {
                let message = format!("give `{key}` or `{file_key}`, not both");
                let path = self.path_of(&file_key);
                self.findings.error(&file.place, path, message);
                None
            }
            (Some(located), None) => self.secret_text(key, &located, values::text),
            (None, Some(located)) => self.secret_text(&file_key, &located, values::file_content),
        }
    }

    fn secret_text(
        &mut self,
        key: &str,
        located: &Located,
        parse: impl Fn(&Located) -> Result<String, Problem>,
    ) -> Option<(String, Place)> {
        match parse(located) {
            Ok(text) => {
                self.changed(key, "[redacted]".into(), &located.place);
                Some((text, located.place.clone()))
            }
            Err(problem) => {
                self.report(key, located, problem);
                None
            }
        }
    }

    /// Notes a setting that is not the default.
    pub(crate) fn changed(&mut self, key: &str, value: String, place: &Place) {
        self.findings.changed.push(Setting {
            key: self.path_of(key),
            value,
            place: place.to_string(),
        });
    }

    /// Reports what is wrong with a value that was taken.
    pub(crate) fn report(&mut self, key: &str, located: &Located, problem: Problem) {
        let place = problem.place.as_ref().unwrap_or(&located.place);
        let path = self.path_of(key);
        self.findings.error(place, path, problem.message);
    }

    /// Reports what is wrong with a key in view of others.
    pub(crate) fn fail(&mut self, key: &str, message: impl Into<String>) {
        let path = self.path_of(key);
        if let Some(place) = self.place_of(key) {
            self.findings.error(&place, path, message);
        }
    }

    /// Everything has been asked for: what is left is unknown.
    pub(crate) fn finish(self) {
        for entry in self.table.0 {
            if !self.asked.contains(&entry.key) {
                self.findings.unknown.push(Unknown {
                    section: self.path.clone(),
                    pattern: self.pattern.clone(),
                    key: entry.key,
                    place: entry.place,
                });
            }
        }
    }
}
