//! One spelling for equal values.

use super::{NotAnObject, Raw, RawObject, as_str, elements, write_str};

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

fn write_canonical_object(out: &mut Vec<u8>, object: &RawObject<'_>, depth: u32) {
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
