//! A server as `POST /api/servers` takes it: a JSON object with its `name` and
//! the keys of `[servers.NAME]`, except those that run programs or read files.

use super::{ServerConfig, read_all};
use crate::config::{
    ConfigErrors,
    section::{Findings, Section},
    source,
    tree::{Located, Place, Table, Value},
    values,
};

/// What only an operator may have a node do.
const OPERATORS_ONLY: [&str; 3] = ["command", "env", "directory"];

impl ServerConfig {
    /// Reads a server that is to be registered.
    ///
    /// # Errors
    /// With every finding at once, as for the configuration.
    pub fn from_request(json: &str) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let server = source::requested_json(json, &mut findings)
            .and_then(|table| read(table, &mut findings));
        findings.settle_unknown();
        let (errors, _) = findings.in_order();
        match server {
            Some(server) if errors.is_empty() => Ok(server),
            Some(_) | None => Err(ConfigErrors(errors)),
        }
    }
}

fn read(mut server: Table, findings: &mut Findings) -> Option<ServerConfig> {
    let place = Place::Request;
    let Some(name) = server.take("name") else {
        findings.error(&place, "name", "is missing");
        return None;
    };
    let name = match values::some_text(&name) {
        Ok(name) => name,
        Err(problem) => {
            findings.error(&place, "name", problem.message);
            return None;
        }
    };
    let forbidden: Vec<_> = OPERATORS_ONLY
        .into_iter()
        .filter(|key| server.take(key).is_some())
        .collect();
    for key in &forbidden {
        let message = "programs are run for a node's own configuration only, not for the API";
        findings.error(&place, format!("servers.{name}.{key}"), message);
    }
    if !forbidden.is_empty() {
        return None;
    }
    let within = |key: &str, table: Table| {
        let mut outer = Table::default();
        let value = Value::Table(table);
        let place = Place::Request;
        outer.set(key, Located { value, place });
        outer
    };
    let tree = within("servers", within(&name, server));
    let mut root = Section::root(tree, findings);
    read_all(root.section("servers"), &[]).pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Endpoint;

    fn errors(json: &str) -> Vec<String> {
        let errors = ServerConfig::from_request(json).expect_err("a bad server");
        assert!(!errors.0.is_empty());
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_has_the_keys_of_the_configuration() {
        let server = ServerConfig::from_request(
            r#"{"name":"a","replicas":["http://one/mcp",{"url":"https://two/mcp","weight":3}],
                "balance":"weighted","timeout":"5s","headers":{"Authorization":"Bearer x"}}"#,
        )
        .expect("a server");
        assert_eq!((server.id.as_str(), server.origin), ("a", "api"));
        assert_eq!(server.replicas.len(), 2);
        assert_eq!(server.replicas[1].weight, 3);
        assert_eq!(server.timeout.as_secs(), 5);
        assert!(server.headers[0].1.is_sensitive());
        assert!(
            server
                .replicas
                .iter()
                .all(|replica| matches!(replica.endpoint, Endpoint::Http(_)))
        );
    }

    #[test]
    fn mistakes_are_told_as_for_the_configuration() {
        let cases = [
            ("{", "request:1:1"),
            ("[]", "expected an object"),
            ("{}", "name: is missing"),
            (r#"{"name":1,"url":"http://x/"}"#, "name: expected a text"),
            (
                r#"{"name":"a__b","url":"http://x/"}"#,
                "is not a server name",
            ),
            (
                r#"{"name":"a"}"#,
                "servers.a: does not say how it is reached",
            ),
            (r#"{"name":"a","url":"ftp://x/"}"#, "beginning with http://"),
            (
                r#"{"name":"a","url":"http://u:p@x/"}"#,
                "put it into `headers`",
            ),
            (
                r#"{"name":"a","url":"http://x/","timeout":5}"#,
                "servers.a.timeout: expected a duration",
            ),
            (
                r#"{"name":"a","url":"http://x/","blance":"p2c"}"#,
                "did you mean `servers.a.balance`?",
            ),
            (
                r#"{"name":"a","url":"http://x/","headers":{"Host":"y"}}"#,
                "set by the node itself",
            ),
        ];
        for (json, expected) in cases {
            let found = errors(json);
            assert!(
                found.iter().any(|error| error.contains(expected)),
                "{json}\n{found:?}"
            );
        }
    }

    #[test]
    fn neither_programs_nor_files_are_touched() {
        for json in [
            r#"{"name":"a","command":["sh","-c","id"]}"#,
            r#"{"name":"a","url":"http://x/","command":"id"}"#,
            r#"{"name":"a","url":"http://x/","env":{"A":"b"}}"#,
            r#"{"name":"a","url":"http://x/","directory":"/"}"#,
        ] {
            let found = errors(json);
            assert!(
                found.iter().all(|error| error.contains("not for the API")),
                "{json}\n{found:?}"
            );
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let json =
            format!(r#"{{"name":"a","url":"http://x/","headers":{{"X":{{"file":"{file}"}}}}}}"#);
        let found = errors(&json);
        assert!(found[0].contains("names a file"), "{found:?}");
    }
}
