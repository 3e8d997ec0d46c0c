//! A few members of an object, found without splitting it.

use std::{borrow::Cow, fmt};

use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{Raw, as_str};

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
    (&mut reader)
        .deserialize_map(Lookup(names))
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
