//! Reads `docs/redis-keys.md`, for tests here and in `tests/it`.

/// Forms of keys with the rest of their row (type, time to live,
/// bound, writer), and of channels.
pub(crate) struct Listed {
    pub(crate) keys: Vec<(Form, Vec<String>)>,
    pub(crate) channels: Vec<Form>,
}

/// A key or channel in which words in capitals stand for something.
#[derive(Debug)]
pub(crate) struct Form(pub(crate) String);

impl Form {
    /// Whether `text` has this form.
    pub(crate) fn fits(&self, text: &str) -> bool {
        fits(&parts(&self.0), text)
    }
}

/// The fixed parts, and `None` for each word in capitals.
fn parts(form: &str) -> Vec<Option<&str>> {
    let mut parts = Vec::new();
    let mut rest = form;
    while let Some(first) = rest.chars().next() {
        let is_word = first.is_ascii_uppercase();
        let end = rest.find(|c: char| c.is_ascii_uppercase() != is_word);
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push((!is_word).then_some(part));
        rest = after;
    }
    parts
}

fn fits(parts: &[Option<&str>], text: &str) -> bool {
    match parts {
        [] => text.is_empty(),
        [Some(fixed), rest @ ..] => text
            .strip_prefix(fixed)
            .is_some_and(|after| fits(rest, after)),
        // Something: at least a character, and no separator or brace, which
        // would make it another key.
        [None, rest @ ..] => text
            .char_indices()
            .take_while(|(_, c)| !matches!(c, ':' | '{' | '}'))
            .any(|(at, c)| fits(rest, &text[at + c.len_utf8()..])),
    }
}

pub(crate) fn listed() -> Listed {
    let document = include_str!("../../../../docs/redis-keys.md");
    let mut listed = Listed {
        keys: Vec::new(),
        channels: Vec::new(),
    };
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let row: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let form = Form(row[0].trim_matches('`').to_owned());
        match &row[1..] {
            [_message] => listed.channels.push(form),
            cells => {
                let cells = cells.iter().map(|&cell| cell.to_owned()).collect();
                listed.keys.push((form, cells));
            }
        }
    }
    listed
}

#[test]
fn forms_fit_what_they_mean() {
    let form = |text: &str| Form(text.to_owned());
    assert!(form("p:cache:{SERVER:METHOD}:fence").fits("p:cache:{demo:tools/list}:fence"));
    assert!(form("p:session:{SESSION}").fits("p:session:{5e55}"));
    assert!(!form("p:session:{SESSION}").fits("p:session:{5e55}:revoked"));
    assert!(!form("p:on:SOMETHING").fits("p:on:"));
    assert!(form("p:on:SOMETHING").fits("p:on:x"));
}
