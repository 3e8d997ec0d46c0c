use std::path::PathBuf;

use crate::{
    config::{ConfigErrors, Loaded, Overrides, Sources, load},
    servers::Endpoint,
};

fn import(text: &str) -> Result<Loaded, ConfigErrors> {
    let directory = tempfile::tempdir().expect("a directory");
    let file: PathBuf = directory.path().join("mcp.json");
    std::fs::write(&file, text).expect("a file");
    load(&Sources {
        environment: vec![("TOKEN".into(), "t0p".into())],
        flags: Overrides {
            mcp_json: vec![file],
            ..Overrides::default()
        },
        ..Sources::default()
    })
}

fn imported(text: &str) -> Loaded {
    import(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_desktop_clients_file_is_understood() {
    let loaded = imported(
        r#"{
          "mcpServers": {
            "memory": { "command": "npx", "args": ["-y", "memory"], "env": { "FILE": "/x" }, "cwd": "/srv" },
            "remote": { "type": "http", "url": "https://x.example/mcp", "headers": { "Authorization": "Bearer ${TOKEN}" } },
            "off": { "command": "x", "disabled": true }
          }
        }"#,
    );
    let servers = &loaded.config.servers;
    assert_eq!(servers.len(), 2);
    assert_eq!(servers[0].origin, "--mcp-json");
    let Endpoint::Stdio(command) = &servers[0].replicas[0].endpoint else {
        panic!("not a command: {servers:?}");
    };
    assert_eq!(command.argv, ["npx", "-y", "memory"]);
    assert_eq!(command.env["FILE"], "/x");
    assert_eq!(command.directory.as_deref(), Some("/srv"));
    assert_eq!(
        servers[1].replicas[0].endpoint.to_string(),
        "https://x.example/mcp"
    );
    assert_eq!(servers[1].headers[0].1, "Bearer t0p");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn an_editors_file_with_comments_is_understood() {
    let loaded = imported(
        "{ // servers of this workspace\n \"servers\": { \"a\": { \"type\": \"stdio\", \"command\": \"run\", }, },\n \
         \"inputs\": [],\n}",
    );
    assert_eq!(loaded.config.servers[0].id.as_str(), "a");
}

#[test]
fn names_are_made_valid_with_a_warning() {
    let loaded = imported(
        r#"{"mcpServers": {"My Server (beta)!": {"url": "http://a/"}, "x__y": {"url": "http://b/"},
            "a-very-long-name-that-goes-on-and-on": {"url": "http://c/"}}}"#,
    );
    let names: Vec<_> = loaded
        .config
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    assert_eq!(
        names,
        ["My-Server-beta", "x_y", "a-very-long-name-that-goes-on-an"]
    );
    assert_eq!(loaded.warnings.len(), 3);
    assert!(loaded.warnings[0].message.contains("`My-Server-beta`"));
}

#[test]
fn names_that_collide_or_have_nothing_valid_are_errors() {
    let errors = import(
        r#"{"mcpServers": {"a b": {"url": "http://a/"}, "a-b": {"url": "http://b/"}, "日本": {"url": "http://c/"}}}"#,
    )
    .expect_err("two mistakes");
    let text = errors.to_string();
    assert!(text.contains("a second server of that name"), "{text}");
    assert!(text.contains("is not a server name"), "{text}");
}

#[test]
fn findings_point_into_the_imported_file() {
    let errors = import("{\"mcpServers\": {\n  \"a\": {\"url\": \"nowhere\"},\n  \"b\": {\"type\": \"http\"},\n  \"c\": {\"command\": \"x\", \"env\": {\"K\": \"${input:key}\"}}}}")
        .expect_err("three mistakes");
    let text = errors.to_string();
    for expected in [
        "mcp.json:2:16: servers.a.url: expected an address",
        "mcp.json:3:3: servers.b: does not say how it is reached",
        "mcp.json:4:38: `${input:key}` asks a person",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn a_registry_file_with_a_remote_is_understood() {
    let loaded = imported(
        r#"{"$schema": "x", "name": "io.github.someone/weather", "version": "1.0.0", "description": "d",
            "packages": [{"registryType": "npm"}],
            "remotes": [
              {"type": "sse", "url": "https://h.example/sse"},
              {"type": "streamable-http", "url": "https://{region}.example/mcp",
               "variables": {"region": {"default": "eu"}},
               "headers": [{"name": "X-Plan", "value": "free"}, {"name": "X-Extra", "isRequired": false}]}
            ]}"#,
    );
    let server = &loaded.config.servers[0];
    assert_eq!(server.id.as_str(), "weather");
    assert_eq!(
        server.replicas[0].endpoint.to_string(),
        "https://eu.example/mcp"
    );
    assert_eq!(server.headers.len(), 1);
}

#[test]
fn a_registry_file_that_cannot_be_dialled_says_why() {
    let packages = r#"{"name": "a/b", "packages": [{"registryType": "oci"}]}"#;
    let text = import(packages).expect_err("packages only").to_string();
    assert!(text.contains("needs deployments"), "{text}");
    let secret = r#"{"name": "a/b", "remotes": [{"type": "streamable-http", "url": "https://h/{id}",
        "headers": [{"name": "Authorization", "isRequired": true, "isSecret": true}]}]}"#;
    let text = import(secret).expect_err("values are missing").to_string();
    assert!(text.contains("wants the header Authorization"), "{text}");
    assert!(text.contains("variable without a default"), "{text}");
}

#[test]
fn other_files_are_refused() {
    for text in [
        "{}",
        "[]",
        "{\"mcpServers\": []}",
        "x",
        "{\"mcpServers\": {\"a\": 1}}",
    ] {
        assert!(import(text).is_err(), "{text}");
    }
}
