//! One object, split into members that keep their bytes.

use std::borrow::Cow;

use super::{Cursor, Malformed, NotAnObject, Raw, as_str, name_of, raw_from_bytes, write_str};

/// The members of one JSON object, in their order, repeated names included.
#[derive(Debug, Clone, Default)]
pub struct RawObject<'a> {
    members: Vec<Member<'a>>,
}

#[derive(Debug, Clone)]
struct Member<'a> {
    name: Cow<'a, str>,
    /// The name as written, in quotes; `None` when it is one of ours.
    written: Option<&'a Raw>,
    value: Cow<'a, Raw>,
}

/// What can become the value of a member.
pub trait IntoRaw<'a> {
    /// The value, borrowed if possible.
    fn into_raw(self) -> Cow<'a, Raw>;
}

impl<'a> IntoRaw<'a> for &'a Raw {
    fn into_raw(self) -> Cow<'a, Raw> {
        Cow::Borrowed(self)
    }
}

impl<'a> IntoRaw<'a> for Box<Raw> {
    fn into_raw(self) -> Cow<'a, Raw> {
        Cow::Owned(self)
    }
}

impl<'a> IntoRaw<'a> for Cow<'a, Raw> {
    fn into_raw(self) -> Self {
        self
    }
}

impl<'a> RawObject<'a> {
    /// No members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Splits an object into its members.
    ///
    /// # Errors
    /// When `raw` is another kind of value, or a name is not Unicode (a lone
    /// surrogate in an escape).
    pub fn parse(raw: &'a Raw) -> Result<Self, NotAnObject> {
        // Most have a handful of members; growing step by step costs more.
        let mut members = Vec::with_capacity(6);
        let walked = Cursor::new(raw.get()).object(|cursor, name| {
            members.push(Member::new(name, cursor.value()?)?);
            Ok(())
        });
        walked.map(|()| Self { members }).map_err(|_| NotAnObject)
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The value of that name; of repeated ones the last, as nearly every parser does.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Raw> {
        self.members
            .iter()
            .rfind(|member| member.name == name)
            .map(|member| &*member.value)
    }

    /// The value of that name if it is a string.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).and_then(as_str)
    }

    /// The value of that name if it is an object.
    #[must_use]
    pub fn get_object(&self, name: &str) -> Option<RawObject<'_>> {
        self.get(name).and_then(|raw| RawObject::parse(raw).ok())
    }

    /// Whether there is a member of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A name that occurs more than once. Readers disagree about which one
    /// counts, so what routing depends on must not be repeated.
    #[must_use]
    pub fn repeated_name(&self) -> Option<&str> {
        let repeats = |at: usize| {
            let name = &self.members[at].name;
            self.members[..at]
                .iter()
                .any(|earlier| earlier.name == *name)
        };
        if self.members.len() <= 16 {
            return (1..self.members.len())
                .find(|&at| repeats(at))
                .map(|at| &*self.members[at].name);
        }
        let mut names: Vec<&str> = self.members.iter().map(|member| &*member.name).collect();
        names.sort_unstable();
        names
            .windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
    }

    /// Replaces the value of that name in its place, or appends it. Repeats of
    /// the name are removed.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl IntoRaw<'a>) {
        let name = name.into();
        let value = value.into_raw();
        match self.members.iter().position(|member| member.name == name) {
            Some(first) => {
                self.members[first].value = value;
                let mut at = 0;
                self.members.retain(|member| {
                    at += 1;
                    at - 1 <= first || member.name != name
                });
            }
            None => self.push(name, value),
        }
    }

    /// Appends a member whose name the caller knows to be new.
    pub fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl IntoRaw<'a>) {
        self.members.push(Member {
            name: name.into(),
            written: None,
            value: value.into_raw(),
        });
    }

    /// Removes every member of that name; answers the value that counted.
    pub fn remove(&mut self, name: &str) -> Option<Cow<'a, Raw>> {
        let mut removed = None;
        let first = self.members.iter().position(|member| member.name == name)?;
        // One pass, also when the name is repeated a million times.
        for member in self.members.split_off(first) {
            if member.name == name {
                removed = Some(member.value);
            } else {
                self.members.push(member);
            }
        }
        removed
    }

    /// Keeps the members for which `keep` answers true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Raw) -> bool) {
        self.members
            .retain(|member| keep(&member.name, &member.value));
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Raw)> {
        self.members
            .iter()
            .map(|member| (&*member.name, &*member.value))
    }

    /// The object as JSON.
    #[must_use]
    pub fn to_raw(&self) -> Box<Raw> {
        let size = self
            .members
            .iter()
            .map(|member| member.name.len() + member.value.get().len() + 4)
            .sum::<usize>();
        let mut out = Vec::with_capacity(size + 2);
        self.write(&mut out);
        raw_from_bytes(out)
    }

    /// Appends the object as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, member) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match member.written {
                Some(written) => out.extend_from_slice(written.get().as_bytes()),
                None => write_str(out, &member.name),
            }
            out.push(b':');
            out.extend_from_slice(member.value.get().as_bytes());
        }
        out.push(b'}');
    }
}

impl<'a> Member<'a> {
    fn new(written: &'a Raw, value: &'a Raw) -> Result<Self, Malformed> {
        Ok(Self {
            name: name_of(written)?,
            written: Some(written),
            value: Cow::Borrowed(value),
        })
    }
}
