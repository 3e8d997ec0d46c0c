//! A few members of an object, found without splitting it.

use std::borrow::Cow;

use super::{Cursor, Raw, as_str, name_of};

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
    let mut found = [None; N];
    let mut repeated = None;
    let walked = Cursor::new(raw.get()).object(|cursor, written| {
        let name = name_of(written)?;
        let value = cursor.value()?;
        if let Some(at) = names.iter().position(|wanted| *wanted == name)
            && found[at].replace(value).is_some()
        {
            repeated = Some(names[at]);
        }
        Ok(())
    });
    match (walked, repeated) {
        (Err(_), _) => Err(Unreadable::NotAnObject),
        (Ok(()), Some(name)) => Err(Unreadable::Repeated(name.to_owned())),
        (Ok(()), None) => Ok(found),
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
