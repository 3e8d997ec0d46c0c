//! Walks over JSON text once, checking it, and says where values begin and end.
//!
//! It accepts what `serde_json` accepts (a property test compares the two) and
//! is many times as fast on what messages mostly consist of, long strings:
//! those are searched for their end, not read byte by byte.

use std::borrow::Cow;

use crate::mcp::Raw;

/// The text is not JSON, or nested deeper than the walk was allowed to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not JSON.
    NotJson,
    /// Too deep.
    TooDeep,
}

/// A place in a text. Whoever walks an object may walk into its values.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    max_depth: u32,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `text`, which may be nested to any depth.
    pub(crate) fn new(text: &'a str) -> Self {
        Self::within(text, u32::MAX)
    }

    /// At the beginning of `text`, which may be nested so deep.
    pub(crate) fn within(text: &'a str, max_depth: u32) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            max_depth,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    fn next_token(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.peek()
    }

    fn take(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.next_token() != Some(expected) {
            return Err(Malformed::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.next_token() {
            None => Ok(()),
            Some(_) => Err(Malformed::NotJson),
        }
    }

    /// Whether the next value is an object.
    pub(crate) fn is_at_object(&mut self) -> bool {
        self.next_token() == Some(b'{')
    }

    fn deeper(&mut self) -> Result<(), Malformed> {
        if self.depth == self.max_depth {
            return Err(Malformed::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    /// Walks over what `walk` walks over, and answers it as a value.
    pub(crate) fn span<T>(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<(&'a Raw, T), Malformed> {
        self.skip_blanks();
        let from = self.at;
        let found = walk(self)?;
        Ok((Raw::trusted(&self.text[from..self.at]), found))
    }

    /// Walks over an object. `member` is told each name as it is written and
    /// has to walk over the value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a Raw) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.take(b'{')?;
        self.deeper()?;
        if self.next_token() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let (name, ()) = self.span(Self::string)?;
                self.take(b':')?;
                member(self, name)?;
                match self.next_token() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break self.at += 1,
                    _ => return Err(Malformed::NotJson),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Walks over an array. `item` has to walk over each value.
    pub(crate) fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.take(b'[')?;
        self.deeper()?;
        if self.next_token() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                item(self)?;
                match self.next_token() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break self.at += 1,
                    _ => return Err(Malformed::NotJson),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The next value, whatever it is.
    pub(crate) fn value(&mut self) -> Result<&'a Raw, Malformed> {
        self.span(Self::skip).map(|(value, ())| value)
    }

    /// Walks over the next value. The way back out of nested ones is kept in
    /// a list, not on the stack, which senders could exhaust.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = Open::default();
        loop {
            match self.next_token().ok_or(Malformed::NotJson)? {
                b'"' => self.string()?,
                b'{' => {
                    self.at += 1;
                    self.deeper()?;
                    if self.next_token() != Some(b'}') {
                        open.push(true);
                        self.name()?;
                        continue;
                    }
                    self.at += 1;
                    self.depth -= 1;
                }
                b'[' => {
                    self.at += 1;
                    self.deeper()?;
                    if self.next_token() != Some(b']') {
                        open.push(false);
                        continue;
                    }
                    self.at += 1;
                    self.depth -= 1;
                }
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // After a value: the next one, or the ends of those around it.
            loop {
                let Some(is_object) = open.last() else {
                    return Ok(());
                };
                match (self.next_token(), is_object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        break self.name()?;
                    }
                    (Some(b','), false) => break self.at += 1,
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        self.depth -= 1;
                        open.pop();
                    }
                    _ => return Err(Malformed::NotJson),
                }
            }
        }
    }

    fn name(&mut self) -> Result<(), Malformed> {
        self.skip_blanks();
        self.string()?;
        self.take(b':')
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed::NotJson);
        }
        self.at += word.len();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Malformed> {
        if self.peek() != Some(b'"') {
            return Err(Malformed::NotJson);
        }
        self.at += 1;
        let bytes = self.text.as_bytes();
        loop {
            let rest = &bytes[self.at..];
            let found = end_of_run(rest).ok_or(Malformed::NotJson)?;
            self.at += found + 1;
            match rest[found] {
                b'"' => return Ok(()),
                b'\\' => {}
                _control => return Err(Malformed::NotJson),
            }
            let escape = bytes.get(self.at).ok_or(Malformed::NotJson)?;
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits = bytes.get(self.at..self.at + 4).ok_or(Malformed::NotJson)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Malformed::NotJson);
                    }
                    self.at += 4;
                }
                _ => return Err(Malformed::NotJson),
            }
        }
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from {
            return Err(Malformed::NotJson);
        }
        Ok(())
    }
}

/// Bytes that are looked at by the word before a search for many begins.
const NEAR: usize = 64;

/// Where a run of plain characters ends: at a quote, a backslash or a control
/// character, which no string may have.
fn end_of_run(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Most strings are short, and calling the search costs more than a few words.
    while at < NEAR
        && let Some(word) = bytes[at..].first_chunk()
    {
        let ends = ends_in(u64::from_le_bytes(*word));
        if ends != 0 {
            return Some(at + ends.trailing_zeros() as usize / 8);
        }
        at += size_of::<u64>();
    }
    let rest = &bytes[at..];
    let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    if rest.len() < NEAR {
        return rest.iter().position(is_end).map(|found| at + found);
    }
    let found = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    // One look at all of them costs less than stopping at the first.
    let is_control = |bad, byte: &u8| bad | (*byte < b' ');
    if rest[..found].iter().fold(false, is_control) {
        return rest.iter().position(is_end).map(|found| at + found);
    }
    (found < rest.len()).then_some(at + found)
}

/// The high bit of each byte of `word` that ends a run; those above the lowest
/// may be wrong (carries).
fn ends_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, b' ') | is(b'"') | is(b'\\')) & HIGHS
}

/// Which of the values around the present one are objects, the innermost last.
#[derive(Debug, Default)]
struct Open {
    /// The innermost ones, a bit each.
    near: u64,
    count: u32,
    /// The others, by the word.
    far: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.count == u64::BITS {
            self.far.push(self.near);
            self.count = 0;
        }
        self.near = self.near << 1 | u64::from(is_object);
        self.count += 1;
    }

    fn last(&self) -> Option<bool> {
        (self.count > 0).then_some(self.near & 1 == 1)
    }

    fn pop(&mut self) {
        self.near >>= 1;
        self.count -= 1;
        if self.count == 0
            && let Some(word) = self.far.pop()
        {
            self.near = word;
            self.count = u64::BITS;
        }
    }
}

/// The text of a member's name; an error when it is not Unicode.
pub(crate) fn name_of(written: &Raw) -> Result<Cow<'_, str>, Malformed> {
    super::as_str(written).ok_or(Malformed::NotJson)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip().and_then(|()| cursor.end()).is_ok()
    }

    #[test]
    fn it_is_as_strict_as_the_parser() {
        for text in [
            "",
            " ",
            "{}",
            " [ ] ",
            "nul",
            "null",
            "nulll",
            "true",
            "tru",
            "falsey",
            "0",
            "-0",
            "01",
            "-",
            "1.",
            "1.0",
            ".5",
            "1e",
            "1e+5",
            "1E-05",
            "+1",
            "\"\"",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u123\"",
            "\"\\ud800\"",
            "\"a\nb\"",
            "\"a\u{7f}b\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "[}",
            "{]",
            "[[]",
            "[]]",
            "{\"a\":[{\"b\":{}},[],\"x\"]}",
            "1 1",
            "\u{feff}1",
            "{\"a\":{\"b\":[1,{}],\"c\":\"0123456789abcdefghijklmnop\"}}",
        ] {
            let parsed = serde_json::from_str::<IgnoredAny>(text).is_ok();
            assert_eq!(accepts(text), parsed, "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded_where_that_is_asked_for_and_never_by_the_stack() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let within = |levels, max| Cursor::within(&deep(levels), max).skip();
        assert_eq!(within(4, 4), Ok(()));
        assert_eq!(within(5, 4), Err(Malformed::TooDeep));
        assert!(accepts(&deep(100_000)));
        let mixed = "{\"a\":[".repeat(200) + "1" + &"]}".repeat(200);
        assert!(accepts(&mixed));
        assert!(!accepts(&mixed.replace("1]}", "1}]")));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_parser(text in r#"[\[\]{}:,"\\ 0-9a-fu.eE+\-\n\x01é]{0,24}"#) {
            let parsed = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(&text), parsed);
        }

        #[test]
        fn it_agrees_about_almost_json(at in 0_usize..80, with in any::<char>()) {
            let text = r#"{"a":[1,-2.5e3,"x\n\u00e9y",{"long name, longer than sixteen":null}],"b":true}"#;
            let mut changed: Vec<char> = text.chars().collect();
            let length = changed.len();
            changed[at % length] = with;
            let changed: String = changed.into_iter().collect();
            let parsed = serde_json::from_str::<IgnoredAny>(&changed).is_ok();
            prop_assert_eq!(accepts(&changed), parsed);
        }
    }
}
