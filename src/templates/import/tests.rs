use super::*;
use crate::templates::{Settings, Template, spec::Transport};

fn one(text: &str) -> (Template, Imported) {
    let mut import = import(text).expect("a known format");
    assert!(import.skipped.is_empty(), "{:?}", import.skipped);
    let imported = import.templates.pop().expect("a template");
    let path = "x/template.json";
    let template = format::read(&imported.name, Origin::BuiltIn, path, &imported.text);
    (template.expect("a valid template"), imported)
}

fn settings(config: &[(&str, &str)]) -> Settings {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Settings {
        config: config.iter().map(owned).collect(),
        ..Settings::default()
    }
}

#[test]
fn an_oci_package_of_the_registry_becomes_a_template() {
    let (template, imported) = one(r#"{ "server": {
          "name": "io.github.someone/Weather_Server", "description": "Forecasts", "version": "1.4.0",
          "packages": [
            {"registryType": "npm", "identifier": "weather"},
            {"registryType": "oci", "identifier": "ghcr.io/someone/weather", "version": "1.4.0",
             "transport": {"type": "streamable-http", "url": "http://localhost:9000/mcp"},
             "runtimeArguments": [
               {"type": "named", "name": "--mount", "value": "type=bind,src={source},dst=/data", "isRequired": true,
                "description": "Where forecasts are kept", "variables": {"source": {"format": "filepath"}}},
               {"type": "named", "name": "--network", "value": "host"}],
             "packageArguments": [
               {"type": "positional", "value": "serve"},
               {"type": "named", "name": "--units", "default": "metric", "choices": ["metric", "imperial"]},
               {"type": "named", "name": "--verbose", "format": "boolean", "default": "false"},
               {"type": "positional", "valueHint": "city", "isRequired": true}],
             "environmentVariables": [
               {"name": "WEATHER_KEY", "description": "Key", "isRequired": true, "isSecret": true},
               {"name": "RETRIES", "format": "number", "default": "3"}]}],
          "remotes": [{"type": "streamable-http", "url": "https://weather.example/mcp"}]
        }}"#);
    assert_eq!(template.name.as_str(), "weather-server");
    assert_eq!(template.image, "ghcr.io/someone/weather:1.4.0");
    let path = "/mcp".to_owned();
    assert_eq!(template.transport, Transport::Http { port: 9000, path });
    let endpoint = template.endpoint.as_ref().map(ToString::to_string);
    assert_eq!(endpoint.as_deref(), Some("https://weather.example/mcp"));
    assert!(
        imported
            .notes
            .iter()
            .any(|note| note.contains("--network host was left out"))
    );
    let spec = template
        .resolve(&settings(&[
            ("weather_key", "k"),
            ("data", "/srv/w"),
            ("city", "New York"),
            ("verbose", "true"),
        ]))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(spec.command.as_deref(), Some(&["serve".to_owned()][..]));
    let arguments: Vec<_> = spec
        .arguments
        .iter()
        .map(|one| one.value.as_str())
        .collect();
    assert_eq!(arguments, ["--units", "metric", "--verbose", "New York"]);
    assert_eq!(spec.volumes[0].target, "/data");
    assert!(spec.env["WEATHER_KEY"].sensitive);
    assert_eq!(spec.env["RETRIES"].value, "3");
    let told = template
        .resolve(&settings(&[]))
        .expect_err("much is missing")
        .to_string();
    for missing in ["weather_key", "data", "city"] {
        assert!(told.contains(&format!("{missing}: is required")), "{told}");
    }
}

#[test]
fn docker_run_in_a_clients_file_becomes_a_template_without_its_secrets() {
    let (template, imported) = one(r#"{ "mcpServers": { "GitHub": {
          "command": "/usr/bin/docker",
          "args": ["run", "-i", "--rm", "-e", "GITHUB_PERSONAL_ACCESS_TOKEN", "-e", "MODE=fast",
                   "--env=EMPTY", "-v", "/srv/repos:/repos:ro", "--network", "host",
                   "ghcr.io/github/github-mcp-server", "stdio", "--verbose"],
          "env": { "GITHUB_PERSONAL_ACCESS_TOKEN": "ghp_hunter2" } // mine
        } } }"#);
    assert!(!imported.text.contains("hunter2") && !format!("{imported:?}").contains("hunter2"));
    assert_eq!(template.name.as_str(), "github");
    assert_eq!(
        template.command.as_deref(),
        Some(&["stdio".to_owned(), "--verbose".to_owned()][..])
    );
    let spec = template
        .resolve(&settings(&[
            ("github_personal_access_token", "t"),
            ("empty", "x"),
        ]))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(spec.env["MODE"].value, "fast");
    assert!(spec.env["GITHUB_PERSONAL_ACCESS_TOKEN"].sensitive);
    assert_eq!(spec.volumes[0].source, "/srv/repos");
    assert!(spec.volumes[0].read_only);
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("was not copied") && notes.contains("--network host"),
        "{notes}"
    );
}

#[test]
fn what_needs_no_template_is_told_and_left_out() {
    let import = import(
        r#"{"mcpServers": {
            "remote": {"url": "https://x.example/mcp"},
            "program": {"command": "npx", "args": ["-y", "x"]},
            "odd": {"command": "docker", "args": ["run", "--rm"]},
            "fine": {"command": "docker", "args": ["run", "mcp/time"]}}}"#,
    )
    .expect("a known format");
    assert_eq!(import.templates.len(), 1);
    assert_eq!(import.skipped.len(), 3, "{:?}", import.skipped);
    assert!(
        import
            .skipped
            .iter()
            .any(|why| why.contains("names no image"))
    );
    let remote = super::import(
        r#"{"name": "a/b", "remotes": [{"type": "streamable-http", "url": "https://x/mcp"}]}"#,
    );
    assert!(remote.expect("known").skipped[0].contains("--mcp-json takes it"));
    assert!(super::import("{}").is_err() && super::import("[").is_err());
}
