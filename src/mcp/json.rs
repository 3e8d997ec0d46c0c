//! Editing one JSON object without touching the bytes of its members.
//!
//! Values stay as they were written: number precision, key order, escapes and
//! characters survive. Only the white space between the members of an edited
//! object is lost. Not a document model: nobody here looks deeper than one level.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::Raw;

/// The members of one JSON object, in their order, repeated names included.
#[derive(Debug, Clone, Default)]
pub struct RawObject<'a> {
    members: Vec<Member<'a>>,
}

#[derive(Debug, Clone)]
struct Member<'a> {
    name: Cow<'a, str>,
    /// The quoted name as written, when it was written with escapes.
    written: Option<&'a Raw>,
    value: Cow<'a, Raw>,
}

/// A value was expected to be a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct NotAnObject;

/// A value was expected to be a JSON array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON array")]
pub struct NotAnArray;

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
        serde_json::from_str(raw.get()).map_err(|_| NotAnObject)
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
            None => self.members.push(Member {
                name,
                written: None,
                value,
            }),
        }
    }

    /// Removes every member of that name; answers the value that counted.
    pub fn remove(&mut self, name: &str) -> Option<Cow<'a, Raw>> {
        let mut removed = None;
        while let Some(at) = self.members.iter().position(|member| member.name == name) {
            removed = Some(self.members.remove(at).value);
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

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(written) = map.next_key::<&'de Raw>()? {
                    let value = map.next_value::<&'de Raw>()?;
                    members.push(Member::parse(written, value).map_err(de::Error::custom)?);
                }
                Ok(RawObject { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Member<'a> {
    fn parse(written: &'a Raw, value: &'a Raw) -> Result<Self, serde_json::Error> {
        let (name, written) = match plain_str(written) {
            Some(plain) => (Cow::Borrowed(plain), None),
            None => (
                Cow::Owned(serde_json::from_str(written.get())?),
                Some(written),
            ),
        };
        Ok(Self {
            name,
            written,
            value: Cow::Borrowed(value),
        })
    }
}

/// The content of a string that is written without escapes.
fn plain_str(raw: &Raw) -> Option<&str> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    memchr::memchr(b'\\', inner.as_bytes())
        .is_none()
        .then_some(inner)
}

/// The value as text, if it is a string.
#[must_use]
pub fn as_str(raw: &Raw) -> Option<Cow<'_, str>> {
    if let Some(plain) = plain_str(raw) {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str::<String>(raw.get())
        .ok()
        .map(Cow::Owned)
}

/// Whether the value is an object.
#[must_use]
pub fn is_object(raw: &Raw) -> bool {
    raw.get().starts_with('{')
}

/// Whether the value is an array.
#[must_use]
pub fn is_array(raw: &Raw) -> bool {
    raw.get().starts_with('[')
}

/// Whether the value is `null`.
#[must_use]
pub fn is_null(raw: &Raw) -> bool {
    raw.get() == "null"
}

/// Why members of an object cannot be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is another kind of value.
    #[error("not a JSON object")]
    NotAnObject,
    /// Two readers of the object could disagree about this member.
    #[error("{0} occurs more than once")]
    Repeated(String),
}

/// The values of a few members, without splitting the whole object.
///
/// # Errors
/// When `raw` is no object or repeats one of `names`.
pub fn members<'a, const N: usize>(
    raw: &'a Raw,
    names: [&str; N],
) -> Result<[Option<&'a Raw>; N], Unreadable> {
    struct Lookup<'n, const N: usize>([&'n str; N]);
    impl<'de, const N: usize> Visitor<'de> for Lookup<'_, N> {
        type Value = Result<[Option<&'de Raw>; N], Unreadable>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            let mut repeated = None;
            while let Some(at) = map.next_key_seed(NameIndex(&self.0))? {
                let Some(at) = at else {
                    map.next_value::<de::IgnoredAny>()?;
                    continue;
                };
                if found[at].replace(map.next_value()?).is_some() {
                    repeated = Some(self.0[at]);
                }
            }
            Ok(repeated.map_or(Ok(found), |name| Err(Unreadable::Repeated(name.to_owned()))))
        }
    }
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    de::Deserializer::deserialize_map(&mut reader, Lookup(names))
        .map_err(|_| Unreadable::NotAnObject)?
}

/// Reads a member's name as its place among the wanted ones.
struct NameIndex<'n>(&'n [&'n str]);

impl<'de> de::DeserializeSeed<'de> for NameIndex<'_> {
    type Value = Option<usize>;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIndex<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

/// The value of one member; of repeated ones none.
#[must_use]
pub fn member<'a>(raw: &'a Raw, name: &str) -> Option<&'a Raw> {
    members(raw, [name]).ok().and_then(|[value]| value)
}

/// The value of one member if it is a string.
#[must_use]
pub fn member_str<'a>(raw: &'a Raw, name: &str) -> Option<Cow<'a, str>> {
    member(raw, name).and_then(as_str)
}

/// One of our own values as JSON.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "our types have string keys and no failing serialisers"
)]
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<Raw> {
    serde_json::value::to_raw_value(value).expect("our own types can be written as JSON")
}

/// A JSON string.
#[must_use]
pub fn raw_str(text: &str) -> Box<Raw> {
    raw(text)
}

/// JSON that this module has just put together from valid parts.
#[expect(
    clippy::expect_used,
    reason = "callers concatenate valid JSON with the punctuation between it"
)]
pub(crate) fn raw_from_bytes(json: Vec<u8>) -> Box<Raw> {
    String::from_utf8(json)
        .ok()
        .and_then(|text| Raw::from_string(text).ok())
        .expect("valid parts make valid JSON")
}

/// Appends `text` as a JSON string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    // Writing text to a Vec cannot fail.
    serde_json::to_writer(out, text).ok();
}

/// The items of an array, borrowed.
///
/// # Errors
/// When `raw` is another kind of value.
pub fn elements(raw: &Raw) -> Result<Vec<&Raw>, NotAnArray> {
    serde_json::from_str(raw.get()).map_err(|_| NotAnArray)
}

/// An array of `items`, each as it is.
#[must_use]
pub fn array<'r>(items: impl IntoIterator<Item = &'r Raw>) -> Box<Raw> {
    let mut out = vec![b'['];
    for item in items {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(item.get().as_bytes());
    }
    out.push(b']');
    raw_from_bytes(out)
}

/// Up to `max` items of an array; `Ok(None)` when there are more.
pub(super) fn elements_within(
    json: &str,
    max: usize,
) -> Result<Option<Vec<&Raw>>, serde_json::Error> {
    struct Items(usize);
    impl<'de> Visitor<'de> for Items {
        type Value = Option<Vec<&'de Raw>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() < self.0 {
                match seq.next_element()? {
                    Some(item) => items.push(item),
                    None => return Ok(Some(items)),
                }
            }
            let mut fits = true;
            while seq.next_element::<de::IgnoredAny>()?.is_some() {
                fits = false;
            }
            Ok(fits.then_some(items))
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let items = de::Deserializer::deserialize_seq(&mut reader, Items(max))?;
    reader.end()?;
    Ok(items)
}

/// Whether arrays and objects are nested at most `max` deep. One pass, no
/// allocation; the bytes need not be valid JSON.
#[must_use]
pub fn depth_within(bytes: &[u8], max: u32) -> bool {
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_len(&bytes[at..]),
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Bytes up to and including the quote that ends a string.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        at = (at + 1).min(bytes.len());
    }
    bytes.len()
}

/// The same JSON without line breaks, which a line-based transport forbids.
/// Inside strings they can only stand escaped, so all others are white space.
#[must_use]
pub fn single_line(json: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        return Cow::Borrowed(json);
    }
    let without_breaks = json.iter().map(|&byte| match byte {
        b'\n' | b'\r' => b' ',
        other => other,
    });
    Cow::Owned(without_breaks.collect())
}

/// Deeper parts of a value are copied as they are.
const MAX_CANONICAL_DEPTH: u32 = 128;

/// The value with the members of every object sorted and no white space:
/// equal values that were written differently become the same bytes (numbers
/// stay as written). For keys and digests, never for forwarding.
#[must_use]
pub fn canonical(raw: &Raw) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.get().len());
    write_canonical(&mut out, raw, MAX_CANONICAL_DEPTH);
    out
}

fn write_canonical(out: &mut Vec<u8>, raw: &Raw, depth: u32) {
    let copy = |out: &mut Vec<u8>| out.extend_from_slice(raw.get().as_bytes());
    if depth == 0 {
        return copy(out);
    }
    match raw.get().as_bytes()[0] {
        b'{' => match RawObject::parse(raw) {
            Ok(object) => write_canonical_object(out, &object, depth - 1),
            Err(NotAnObject) => copy(out),
        },
        b'[' => {
            out.push(b'[');
            for (at, item) in elements(raw).unwrap_or_default().into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_canonical(out, item, depth - 1);
            }
            out.push(b']');
        }
        b'"' => match as_str(raw) {
            Some(text) => write_str(out, &text),
            None => copy(out),
        },
        _ => copy(out),
    }
}

pub(super) fn write_canonical_object(out: &mut Vec<u8>, object: &RawObject<'_>, depth: u32) {
    let mut members: Vec<_> = object.iter().collect();
    // Stable: of repeated names the last stays last.
    members.sort_by_key(|(name, _)| *name);
    out.push(b'{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_str(out, name);
        out.push(b':');
        write_canonical(out, value, depth);
    }
    out.push(b'}');
}

#[cfg(test)]
pub(crate) mod tests;
