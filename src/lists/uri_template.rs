//! Whether a URI can be an expansion of a URI template (RFC 6570).
//!
//! Used to find the server of a resource that is in no list. It answers
//! generously, an expression's operator decides only which characters its
//! expansion may hold, because the server itself has the last word. It does
//! not extract variables.

/// One step of a template, compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Exactly this byte.
    Byte(u8),
    /// One or more bytes other than `/`, `?` and `#`.
    Segment,
    /// Any bytes, also none.
    Any,
}

/// Longest template looked at; a longer one matches nothing.
const MAX_TEMPLATE: usize = 4096;

/// Whether `uri` can be an expansion of `template`. Takes time in proportion
/// to the product of their lengths, whatever they contain.
#[must_use]
pub(super) fn matches(template: &str, uri: &str) -> bool {
    let Some(steps) = compile(template) else {
        return false;
    };
    // `reached[i]`: the steps before `i` can have consumed what was read so far.
    let mut reached = vec![false; steps.len() + 1];
    reached[0] = true;
    skip_empty(&steps, &mut reached);
    for &byte in uri.as_bytes() {
        let mut next = vec![false; steps.len() + 1];
        for (index, step) in steps.iter().enumerate() {
            if !reached[index] {
                continue;
            }
            match step {
                Step::Byte(expected) if *expected == byte => next[index + 1] = true,
                Step::Byte(_) => {}
                Step::Segment if matches!(byte, b'/' | b'?' | b'#') => {}
                Step::Segment => {
                    next[index] = true;
                    next[index + 1] = true;
                }
                Step::Any => next[index] = true,
            }
        }
        skip_empty(&steps, &mut next);
        if !next.contains(&true) {
            return false;
        }
        reached = next;
    }
    reached[steps.len()]
}

fn skip_empty(steps: &[Step], reached: &mut [bool]) {
    for (index, step) in steps.iter().enumerate() {
        if reached[index] && *step == Step::Any {
            reached[index + 1] = true;
        }
    }
}

/// `None` when the braces do not pair up.
fn compile(template: &str) -> Option<Vec<Step>> {
    if template.len() > MAX_TEMPLATE {
        return None;
    }
    let mut steps = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        steps.extend(literal.bytes().map(Step::Byte));
        let (expression, tail) = tail.split_once('}')?;
        steps.push(match expression.as_bytes() {
            [] => return None,
            // Reserved expansion, fragments, paths, labels, parameters, queries,
            // and lists may hold separators or be empty.
            [b'+' | b'#' | b'.' | b'/' | b';' | b'?' | b'&', ..] => Step::Any,
            name if name.ends_with(b"*") || name.contains(&b',') => Step::Any,
            _ => Step::Segment,
        });
        rest = tail;
    }
    if rest.contains('}') {
        return None;
    }
    steps.extend(rest.bytes().map(Step::Byte));
    Some(steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn simple_expressions_stay_within_a_segment() {
        assert!(matches("file:///{name}", "file:///a.txt"));
        assert!(matches("notes://{user}/items/{id}", "notes://ann/items/42"));
        assert!(!matches("file:///{name}", "file:///a/b.txt"));
        assert!(!matches("file:///{name}", "file:///"));
        assert!(!matches(
            "notes://{user}/items/{id}",
            "notes://ann/lists/42"
        ));
    }

    #[test]
    fn operators_reach_further_and_may_be_empty() {
        assert!(matches("file:///{+path}", "file:///a/b/c.txt"));
        assert!(matches(
            "db://{table}{?limit,offset}",
            "db://orders?limit=3"
        ));
        assert!(matches("db://{table}{?limit,offset}", "db://orders"));
        assert!(matches("x:{/parts*}", "x:/a/b"));
    }

    #[test]
    fn a_template_without_expressions_is_itself() {
        assert!(matches("info://status", "info://status"));
        assert!(!matches("info://status", "info://status2"));
    }

    #[test]
    fn broken_templates_match_nothing() {
        for broken in ["a{b", "a}b", "a{}b", "{a}{"] {
            assert!(!matches(broken, "ab"), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_is_filled_in_matches(before in "[a-z:/]{0,8}", value in "[a-z0-9.~%-]{1,12}", after in "[a-z/]{0,8}") {
            let template = format!("{before}{{v}}{after}");
            let uri = format!("{before}{value}{after}");
            prop_assert!(matches(&template, &uri));
        }

        #[test]
        fn no_input_takes_long(template in "[{}a+*?/]{0,200}", uri in "[a/?]{0,400}") {
            // Either answer will do, as long as there is one.
            let _answer = matches(&template, &uri);
        }
    }
}
