//! Texts that must never be shown, and what tells them from those that may be.

use std::{fmt, mem};

use serde_json::Value;

/// Texts that are taken out of what servers print before it is shown.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

/// Shorter ones are in every other word.
const SHORTEST: usize = 4;

impl Secrets {
    /// These values, and what is a secret by itself within them.
    #[must_use]
    pub fn new<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        let mut secrets = Vec::new();
        for value in values {
            parts(value.as_ref(), &mut secrets);
        }
        let is_word = |secret: &str| matches!(secret, "true" | "false" | "null");
        secrets.retain(|secret| secret.len() >= SHORTEST && !is_word(secret));
        // One that begins another would hide only that one's beginning.
        secrets.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        secrets.dedup();
        Self(secrets)
    }

    /// The text with `***` in their places.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// The value, its lines, the items of a list, the texts of JSON and what a URL
/// or header proves itself with: servers print any of these alone.
fn parts(value: &str, to: &mut Vec<String>) {
    to.push(value.trim().to_owned());
    // Keys are given in one line too, with `\n` written out.
    let plain = value.replace("\\n", "\n");
    let lines = plain.split(['\n', '\r', ',']).map(str::trim);
    to.extend(lines.map(str::to_owned));
    if value.trim_start().starts_with(['{', '['])
        && let Ok(json) = serde_json::from_str(value.trim())
    {
        texts(&json, to);
    }
    if let Some((_, password)) = user_info(value).and_then(|user| user.split_once(':')) {
        to.push(password.to_owned());
    }
    if let Some((scheme, credential)) = value.trim().rsplit_once(' ')
        && is_scheme(scheme)
    {
        to.push(credential.to_owned());
    }
}

fn texts(json: &Value, to: &mut Vec<String>) {
    match json {
        Value::String(text) => parts(text, to),
        Value::Array(items) => items.iter().for_each(|item| texts(item, to)),
        Value::Object(members) => members.values().for_each(|member| texts(member, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Parts of names that secrets go by.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "credential",
    "private_key",
    "access_key",
];

/// Last words of names that secrets go by.
const LAST_WORDS: [&str; 6] = ["auth", "authorization", "bearer", "jwt", "key", "pass"];

/// Whether something of that name is probably a secret.
#[must_use]
pub fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    let name = name.trim_start_matches('_');
    // A switch, such as `--no-auth`.
    if name.starts_with("no_") {
        return false;
    }
    let last = name.rsplit('_').next().unwrap_or(name);
    SECRET_WORDS.iter().any(|word| name.contains(word)) || LAST_WORDS.contains(&last)
}

/// What the tokens of well-known services begin with.
const TOKENS: [&str; 8] = [
    "sk-",
    "ghp_",
    "gho_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
];

/// Whether a value is probably a secret, whatever its name: an address with
/// user information, a header that proves something, `...password=x...`.
#[must_use]
pub fn looks_secret(value: &str) -> bool {
    let value = value.trim();
    let names_secret = |part: &str| {
        let named = part.split_once(['=', ':']);
        named.is_some_and(|(name, value)| {
            !value.trim().is_empty() && !value.starts_with("//") && sounds_secret(name)
        })
    };
    user_info(value).is_some()
        || TOKENS.iter().any(|token| value.starts_with(token))
        || value
            .rsplit_once(' ')
            .is_some_and(|(scheme, _)| is_scheme(scheme))
        || names_secret(value)
        || value.split(['?', '&', ';', ' ']).any(names_secret)
}

/// Whether what follows this in a header proves who asks.
fn is_scheme(text: &str) -> bool {
    let last = text.rsplit([' ', ':']).next().unwrap_or(text);
    last.eq_ignore_ascii_case("bearer") || last.eq_ignore_ascii_case("basic")
}

/// `user:password` of an address that has it.
fn user_info(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let authority = rest.split(['/', '?', '#', ' ']).next()?;
    authority.rsplit_once('@').map(|(user, _)| user)
}

/// What of each word of a command line is probably a secret: nothing, its end
/// or all of it.
#[must_use]
pub fn in_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<Option<&'a str>> {
    let mut is_wanted = false;
    let secret = |word: &'a str| {
        if mem::take(&mut is_wanted) && !word.starts_with('-') {
            return Some(word);
        }
        if let Some((name, value)) = word.split_once('=')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            let is_secret = sounds_secret(name) || looks_secret(value);
            return Some(value).filter(|value| is_secret && !value.is_empty());
        }
        is_wanted = word.starts_with('-') && sounds_secret(word);
        Some(word).filter(|word| looks_secret(word))
    };
    words.into_iter().map(secret).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_hidden_first_and_short_ones_are_not() {
        let secrets = Secrets::new(["tok3n", "tok3n-and-more", "yes", "true"]);
        let shown = secrets.hide("tok3n-and-more tok3n yes true");
        assert_eq!(shown, "*** *** yes true");
    }

    #[test]
    fn what_is_a_secret_within_a_value_is_hidden_by_itself() {
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADAN\r\n4CbdEfGh==\n";
        let json = r#"{"key":{"text":"first\\nsecond-line"},"mode":true}"#;
        let url = "postgres://user:hunter2pw@host/db";
        let auth = "Authorization: Bearer abc.def";
        let secrets = Secrets::new([pem, "one-item, two-item", json, url, auth]);
        for line in [
            "MIIEvQIBADAN",
            "4CbdEfGh==",
            "one-item",
            "two-item",
            "second-line",
            "hunter2pw",
            "abc.def",
        ] {
            assert_eq!(secrets.hide(line), "***", "{line}");
        }
        assert_eq!(secrets.hide("true user host"), "true user host");
    }

    #[test]
    fn values_that_look_secret_are_told_from_others() {
        for secret in [
            "postgresql://user:pw@host/db",
            "https://key@sentry.example/1",
            "Bearer abc",
            "Authorization: Basic abc",
            "X-API-Key: abc",
            "https://x.example/mcp?api_key=abc&x=1",
            "Server=db;Password=abc",
            "sk-abcdef",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for plain in [
            "https://x.example/mcp?a=b",
            "/srv/secrets",
            "serve",
            "a@b.example",
            "postgres://host/db",
            "8080",
            "token",
        ] {
            assert!(!looks_secret(plain), "{plain}");
        }
    }

    #[test]
    fn secrets_among_the_words_of_a_command_line_are_found() {
        let words = [
            "serve",
            "--api-key",
            "abc==",
            "--token=def",
            "--no-token",
            "--verbose",
            "--db=postgres://u:p@h/d",
            "API_KEY=ghi",
            "--header",
            "X-Api-Key: jkl",
            "--mode=fast",
        ];
        let found: Vec<_> = in_words(words).into_iter().flatten().collect();
        let secrets = [
            "abc==",
            "def",
            "postgres://u:p@h/d",
            "ghi",
            "X-Api-Key: jkl",
        ];
        assert_eq!(found, secrets);
    }
}
