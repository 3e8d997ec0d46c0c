//! How answers are printed: tables for people, JSON and YAML for programs.
//!
//! JSON and YAML keep the order of members and the digits of numbers: the
//! payload is not ours.

use crate::mcp::Raw;
use serde::{
    Serialize,
    ser::{SerializeMap as _, SerializeSeq as _, Serializer},
};

use super::{Failure, Output};
use crate::mcp::json::RawObject;

/// Columns as wide as their widest cell, two blanks between and before them.
pub(super) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let lines = || {
        (!titles.is_empty())
            .then_some(&titles)
            .into_iter()
            .chain(rows)
    };
    let columns = lines().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines().filter_map(|cells| cells.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for cells in lines() {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("  {cell:width$}"));
        let line: String = padded.collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The document as JSON or YAML; `None` for a table.
pub(super) fn document(output: Output, raw: &Raw) -> Result<Option<String>, Failure> {
    match output {
        Output::Table => Ok(None),
        Output::Json => Ok(Some(pretty(raw.get()))),
        Output::Yaml => serde_saphyr::to_string(&InOrder(raw))
            .map(|text| Some(text.trim_end().to_owned()))
            .map_err(|error| Failure::Failed(format!("cannot be written as YAML: {error}"))),
    }
}

/// Valid JSON with a member per line. Only blanks between tokens change.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Serializes raw JSON with its members in their order.
struct InOrder<'a>(&'a Raw);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let text = self.0.get();
        match text.as_bytes().first() {
            Some(b'{') => {
                let object = RawObject::parse(self.0).map_err(S::Error::custom)?;
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for (key, value) in object.iter() {
                    map.serialize_entry(key, &InOrder(value))?;
                }
                map.end()
            }
            Some(b'[') => {
                let items: Vec<&Raw> = serde_json::from_str(text).map_err(S::Error::custom)?;
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&InOrder(item))?;
                }
                list.end()
            }
            Some(b'-' | b'0'..=b'9') => number(text, serializer),
            _ => serde_json::from_str::<serde_json::Value>(text)
                .map_err(S::Error::custom)?
                .serialize(serializer),
        }
    }
}

/// A number that would lose digits is written as text.
fn number<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if let Ok(whole) = text.parse::<i128>() {
        return serializer.serialize_i128(whole);
    }
    match text.parse::<f64>() {
        Ok(float) if format!("{float}") == text || format!("{float:?}") == text => {
            serializer.serialize_f64(float)
        }
        _ => serializer.serialize_str(text),
    }
}

/// The first line of a text, cut to what a table can hold.
pub(super) fn short(text: &str, width: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let cut: String = line.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"z":1,"a":[],"n":12345678901234567890123,"s":"a\"b: {,}\n","l":[true,{"x":null}],"e":{ }}"#;

    fn raw(text: &str) -> &Raw {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn pretty_json_changes_blanks_only() {
        let text = pretty(DOCUMENT);
        assert!(
            text.contains("\n  \"a\": [],\n  \"n\": 12345678901234567890123,\n"),
            "{text}"
        );
        assert!(text.contains(r#""a\"b: {,}\n""#), "{text}");
        assert!(text.ends_with("\"e\": {}\n}"), "{text}");
        let before: serde_json::Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let after: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(before, after);
    }

    #[test]
    fn yaml_keeps_order_and_digits() {
        let text = document(Output::Yaml, raw(DOCUMENT))
            .expect("YAML")
            .expect("a text");
        assert!(text.starts_with("z: 1\n"), "{text}");
        assert!(text.contains("12345678901234567890123"), "{text}");
        let back: serde_json::Value = serde_saphyr::from_str(&text).expect("valid YAML");
        assert_eq!(back["l"][1], serde_json::json!({"x": null}));
        assert_eq!(back["s"], "a\"b: {,}\n");
    }

    #[test]
    fn columns_are_as_wide_as_needed() {
        let rows = [
            vec!["a".into(), "b".into()],
            vec!["ccc".into(), String::new()],
        ];
        assert_eq!(table(&["X", "YY"], &rows), "  X    YY\n  a    b\n  ccc\n");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(short("one\ntwo", 10), "one");
        assert_eq!(short("abcdefghij", 5), "abcd…");
    }
}
