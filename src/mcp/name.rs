//! Names on the merged endpoint: `{server}__{name}`, fit for model APIs.
//!
//! Those take at most 64 letters, digits, `_` and `-`. A name that does not
//! fit is shortened by a rule that looks at nothing but server and name, so
//! that every node finds the same one, today and tomorrow:
//!
//! 1. every other character becomes `_`,
//! 2. the name is cut so that the next step still fits,
//! 3. `_` and the first eight hex digits of the SHA-256 of
//!    `{server}`, a zero byte and `{name}` are appended.
//!
//! Two names of a server therefore collide only when their digests do.

use sha2::{Digest, Sha256};

use crate::ids::{ServerId, hex};

/// Longest name that model APIs take.
pub const MAX_NAME: usize = 64;

/// Stands between server and name; no server's name contains it or ends in `_`.
const SEPARATOR: &str = "__";

/// The name under which the merged endpoint offers `name` of `server`.
#[must_use]
pub fn exposed(server: &ServerId, name: &str) -> String {
    if fits(server, name) {
        return format!("{server}{SEPARATOR}{name}");
    }
    let digest = Sha256::new()
        .chain_update(server.as_str())
        .chain_update([0])
        .chain_update(name)
        .finalize();
    let suffix = hex(&digest[..4]);
    let room = MAX_NAME - server.as_str().len() - SEPARATOR.len() - 1 - suffix.len();
    let kept: String = name
        .chars()
        .map(|c| if is_allowed(c) { c } else { '_' })
        .take(room)
        .collect();
    format!("{server}{SEPARATOR}{kept}_{suffix}")
}

/// Whether the name needs no shortening.
fn fits(server: &ServerId, name: &str) -> bool {
    !name.is_empty()
        && server.as_str().len() + SEPARATOR.len() + name.len() <= MAX_NAME
        && name.chars().all(is_allowed)
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The server of an exposed name, and what follows: the original name, or its
/// shortened form.
#[must_use]
pub fn split(exposed: &str) -> Option<(ServerId, &str)> {
    let (server, rest) = exposed.split_once(SEPARATOR)?;
    let server = ServerId::try_from(server).ok()?;
    (!rest.is_empty()).then_some((server, rest))
}

/// Whether `exposed` is the name of `name` of `server`.
#[must_use]
pub fn matches(exposed: &str, server: &ServerId, name: &str) -> bool {
    if fits(server, name) {
        let rest = exposed.strip_prefix(server.as_str());
        return rest.and_then(|rest| rest.strip_prefix(SEPARATOR)) == Some(name);
    }
    exposed == self::exposed(server, name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn server(name: &str) -> ServerId {
        ServerId::try_from(name).expect("name")
    }

    #[test]
    fn fitting_names_are_kept() {
        let demo = server("demo");
        for name in ["say_hello", "_x", "__x", "a__b", "A-1", &"n".repeat(58)] {
            let exposed = exposed(&demo, name);
            assert_eq!(exposed, format!("demo__{name}"));
            assert_eq!(split(&exposed), Some((demo.clone(), name)));
        }
    }

    /// These strings are in clients' configurations: the rule must not change.
    #[test]
    fn the_shortening_rule_is_pinned() {
        let demo = server("demo");
        assert_eq!(exposed(&demo, "files.read"), "demo__files_read_afca9608");
        assert_eq!(exposed(&demo, ""), "demo___efd47ec6");
        assert_eq!(exposed(&demo, "größe"), "demo__gr__e_a7f2fcf0");
        assert_eq!(
            exposed(&demo, &"n".repeat(59)),
            format!("demo__{}_ddd1e7d0", "n".repeat(49))
        );
        let long = server(&"s".repeat(32));
        assert_eq!(exposed(&long, &"n".repeat(200)).len(), MAX_NAME);
    }

    #[test]
    fn what_has_no_server_does_not_split() {
        for text in ["", "demo", "demo_x", "__x", "demo__", "a.b__x", "_a__x"] {
            assert_eq!(split(text), None, "{text}");
        }
    }

    fn any_server() -> impl Strategy<Value = ServerId> {
        "[a-zA-Z0-9](_?[a-z0-9-]){0,14}".prop_map(|name| server(&name))
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z_]{0,8}", "[a-z._ -]{0,70}", any::<String>()]
    }

    proptest! {
        #[test]
        fn exposed_names_suit_model_apis_and_lead_back(server in any_server(), name in any_name()) {
            let exposed = exposed(&server, &name);
            prop_assert!(exposed.len() <= MAX_NAME && exposed.chars().all(is_allowed), "{}", exposed);
            prop_assert_eq!(split(&exposed).map(|(server, _)| server), Some(server.clone()));
            prop_assert!(matches(&exposed, &server, &name));
            prop_assert_eq!(exposed, super::exposed(&server, &name));
        }

        #[test]
        fn different_names_stay_different(
            pairs in vec((any_server(), any_name()), 2..20),
        ) {
            let mut seen = HashMap::new();
            for (server, name) in pairs {
                let exposed = exposed(&server, &name);
                let before = seen.insert(exposed.clone(), (server.clone(), name.clone()));
                prop_assert!(before.is_none_or(|before| before == (server, name)), "{}", exposed);
            }
        }

        #[test]
        fn only_its_own_name_matches(server in any_server(), name in any_name(), other in any_name()) {
            prop_assert_eq!(matches(&exposed(&server, &name), &server, &other), name == other);
        }
    }
}
