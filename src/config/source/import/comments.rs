//! Editors let people comment their JSON and end lists with a comma.

/// The same text with comments and trailing commas replaced by blanks, so that
/// every other character keeps its place.
pub(in crate::config::source) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut comma = None;
    while let Some(c) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        if token.starts_with("//") || token.starts_with("/*") {
            push_blanks(&mut out, token);
        } else {
            match c {
                ',' => comma = Some(out.len()),
                ']' | '}' => {
                    if let Some(at) = comma.take() {
                        out.replace_range(at..=at, " ");
                    }
                }
                c if c.is_whitespace() => {}
                _ => comma = None,
            }
            out.push_str(token);
        }
        rest = after;
    }
    out
}

fn push_blanks(out: &mut String, comment: &str) {
    for c in comment.chars() {
        if c == '\n' {
            out.push('\n');
        } else {
            // A blank per byte keeps offsets; columns after a comment do not matter.
            out.extend(std::iter::repeat_n(' ', c.len_utf8()));
        }
    }
}

/// Bytes of the comment, string or single character that `text` begins with.
fn token_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if let Some(body) = text.strip_prefix("/*") {
        return body.find("*/").map_or(text.len(), |end| end + 4);
    }
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_become_blanks() {
        let text = "{ // one\n \"a\": [1, 2,], /* ü */ \"b\": \"// no, [x,]\", }";
        let plain = blank(text);
        assert_eq!(plain.len(), text.len());
        let value: serde_json::Value = serde_json::from_str(&plain).expect("plain JSON");
        assert_eq!(value, serde_json::json!({"a": [1, 2], "b": "// no, [x,]"}));
    }

    #[test]
    fn plain_json_stays_as_it_is() {
        for text in [
            "{\"a\\\"//\":\"\\\\\",\"b\":[{},[]]}",
            "\"open",
            "/* open",
            "",
        ] {
            let plain = blank(text);
            assert_eq!(plain.len(), text.len());
            if !text.starts_with('/') {
                assert_eq!(plain, text);
            }
        }
    }
}
