//! That `docs/redis-keys.md` lists every key and channel, and no other.

/// What the document says: forms of keys (with the rest of their row) and of channels.
struct Listed {
    keys: Vec<(Form, Vec<String>)>,
    channels: Vec<Form>,
}

/// A key or channel in which words in capitals stand for something.
struct Form(String);

impl Form {
    /// Whether `text` has this form.
    fn fits(&self, text: &str) -> bool {
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

fn listed() -> Listed {
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

/// Checks the document against all forms that the code makes.
pub(super) fn as_listed(in_code: &[&str]) {
    let listed = listed();
    for (form, cells) in &listed.keys {
        let complete = cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty());
        assert!(
            complete,
            "{}: type, time to live, bound and writer are all needed",
            form.0
        );
    }
    let keys: Vec<_> = listed.keys.into_iter().map(|(form, _)| form).collect();
    for (what, forms) in [("key", keys), ("channel", listed.channels)] {
        let is_channel = |text: &str| text.starts_with("mcp-fleet:on:");
        let in_code = in_code
            .iter()
            .filter(|text| is_channel(text) == (what == "channel"));
        let mut used = vec![false; forms.len()];
        for text in in_code {
            let fitting: Vec<_> = (0..forms.len())
                .filter(|&at| forms[at].fits(text))
                .collect();
            assert_eq!(
                fitting.len(),
                1,
                "docs/redis-keys.md has to list the {what} {text} once"
            );
            used[fitting[0]] = true;
        }
        for (form, used) in forms.iter().zip(used) {
            assert!(
                used,
                "docs/redis-keys.md lists {}, which is no {what}",
                form.0
            );
        }
    }
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
