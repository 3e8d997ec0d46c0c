//! That `docs/redis-keys.md` lists every key and channel, and no other.

use super::document::listed;

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
