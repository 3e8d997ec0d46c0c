//! `${NAME}`, `${env:NAME}` and `${NAME:-default}` in imported files, as the
//! clients that wrote them replace them.

use crate::config::{
    section::Findings,
    tree::{Located, Value},
};

/// Replaces variables in all texts of a value.
pub(super) fn replace(
    located: &mut Located,
    environment: &[(String, String)],
    findings: &mut Findings,
) {
    match &mut located.value {
        Value::Text(text) if text.contains("${") => match expand(text, environment) {
            Ok(expanded) => *text = expanded,
            Err(message) => findings.error(&located.place, "", message),
        },
        Value::List(items) => {
            for item in items {
                replace(item, environment, findings);
            }
        }
        Value::Table(table) => {
            for entry in &mut table.0 {
                replace(&mut entry.value, environment, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

fn expand(text: &str, environment: &[(String, String)]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            return Err("`${` without its `}`".into());
        };
        out.push_str(&value_of(inside, environment)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value_of(inside: &str, environment: &[(String, String)]) -> Result<String, String> {
    if inside.starts_with("input:") {
        return Err(format!(
            "`${{{inside}}}` asks a person at an editor; write the value, or `${{env:NAME}}` and \
             set that variable"
        ));
    }
    let name = inside.strip_prefix("env:").unwrap_or(inside);
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    environment
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .or(default)
        .map(str::to_owned)
        .ok_or_else(|| format!("environment variable {name} is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_clients_do() {
        let environment = [("TOKEN".to_owned(), "t0p".to_owned())];
        let cases = [
            ("Bearer ${TOKEN}", Ok("Bearer t0p".to_owned())),
            ("${env:TOKEN}-${env:TOKEN}", Ok("t0p-t0p".into())),
            ("${MISSING:-fallback}", Ok("fallback".into())),
            ("no $variable", Ok("no $variable".into())),
            (
                "${MISSING}",
                Err("environment variable MISSING is not set".into()),
            ),
            ("${open", Err("`${` without its `}`".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &environment), expected, "{text}");
        }
        let problem = expand("${input:key}", &environment).expect_err("nobody to ask");
        assert!(problem.contains("env:NAME"), "{problem}");
    }
}
