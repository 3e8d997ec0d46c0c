//! The tree that every source is turned into: values that know where they
//! were written. What keys mean is for the sections.

use std::{fmt, path::PathBuf, sync::Arc};

/// Where a value or key was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In a file; line and column begin at 1.
    File {
        path: Arc<str>,
        line: usize,
        column: usize,
    },
    /// In the environment.
    Variable(Arc<str>),
    /// On the command line.
    Flag(Arc<str>),
    /// In a request to the API, which is not the operator's word: it names no
    /// files and no programs.
    Request,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What configuration languages have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null`, an empty YAML value: as if it were not written.
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Located>),
    Table(Table),
}

/// Keys and values in the order they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table(pub(crate) Vec<Entry>);

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Located,
}

impl Place {
    /// Whether everything is text there, so that `"8"` may stand for 8.
    pub(crate) fn is_untyped(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Flag(_))
    }

    /// A path as it is meant at this place: relative to the file that says it.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        match self {
            Self::File { path: file, .. } => std::path::Path::new(&**file)
                .parent()
                .map_or_else(|| PathBuf::from(path), |directory| directory.join(path)),
            Self::Variable(_) | Self::Flag(_) | Self::Request => PathBuf::from(path),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Request => f.write_str("the request"),
        }
    }
}

impl Located {
    /// The same, as part of a request.
    pub(crate) fn requested(self) -> Self {
        let value = match self.value {
            Value::List(items) => Value::List(items.into_iter().map(Self::requested).collect()),
            Value::Table(table) => Value::Table(table.requested()),
            scalar @ (Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)) => scalar,
        };
        Self {
            value,
            place: Place::Request,
        }
    }

    pub(crate) fn text(text: impl Into<String>, place: Place) -> Self {
        Self {
            value: Value::Text(text.into()),
            place,
        }
    }

    /// What was found, for a message. Never for a secret.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(Self::shown).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(_) => "a table".into(),
        }
    }
}

impl Table {
    /// The same, as part of a request.
    pub(crate) fn requested(self) -> Self {
        let requested = |entry: Entry| Entry {
            key: entry.key,
            place: Place::Request,
            value: entry.value.requested(),
        };
        Self(self.0.into_iter().map(requested).collect())
    }

    /// The value of a key that is written and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Located> {
        self.0
            .iter()
            .find(|entry| entry.key == key && entry.value.value != Value::Null)
            .map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.key == key)
    }

    /// The value of a key that is written, taken out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Located> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index).value)
    }

    /// Puts a value at a key, over what was there.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: Located) {
        let key = key.into();
        let place = value.place.clone();
        match self.get_mut(&key) {
            Some(entry) => {
                entry.place = place;
                entry.value = value;
            }
            None => self.0.push(Entry { key, place, value }),
        }
    }

    /// The table at a key, made when there is none.
    pub(crate) fn table_at(&mut self, key: &str, place: &Place) -> &mut Self {
        let is_table = |entry: &Entry| matches!(entry.value.value, Value::Table(_));
        if !self
            .0
            .iter()
            .any(|entry| entry.key == key && is_table(entry))
        {
            let value = Value::Table(Self::default());
            let place = place.clone();
            self.set(key, Located { value, place });
        }
        match self.get_mut(key).map(|entry| &mut entry.value.value) {
            Some(Value::Table(table)) => table,
            _ => unreachable!("the key was just given a table"),
        }
    }
}
