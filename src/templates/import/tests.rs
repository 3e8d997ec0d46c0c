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

#[test]
fn no_value_that_may_be_a_secret_is_copied() {
    let (template, imported) = one(r#"{ "mcpServers": { "db": { "command": "docker",
          "args": ["run", "-i", "-e", "DATABASE_URL=postgres://u:s3cr3t-1@h/d", "-e", "AUTH=Bearer s3cr3t-2",
                   "-e", "OPENAI_KEY=s3cr3t-3", "-e", "HOST=db.example", "mcp/postgres", "serve",
                   "--api-key", "sk-s3cr3t-4", "--port", "5432", "--token=s3cr3t-5",
                   "postgresql://user:s3cr3t-6@host/db"] } } }"#);
    assert!(!format!("{imported:?}").contains("s3cr3t"), "{imported:?}");
    let secrets = [
        "database_url",
        "auth",
        "openai_key",
        "api_key",
        "token",
        "url",
    ];
    let told = template.resolve(&settings(&[])).expect_err("incomplete");
    assert_eq!(told.problems.len(), secrets.len(), "{told}");
    let given = secrets.map(|name| (name, name));
    let spec = template.resolve(&settings(&given)).expect("complete");
    let command = spec.command.expect("a command");
    assert_eq!(command, ["serve", "--api-key"]);
    let words = spec.arguments.iter();
    let words: Vec<_> = words.map(|word| (&*word.value, word.sensitive)).collect();
    assert_eq!(
        words,
        [
            ("api_key", true),
            ("--port", false),
            ("5432", false),
            ("--token=token", true),
            ("url", true)
        ]
    );
    assert_eq!(spec.env["HOST"].value, "db.example");
    assert!(spec.env["AUTH"].sensitive && spec.env["DATABASE_URL"].sensitive);
}

#[test]
fn no_secret_of_the_registry_is_copied() {
    let (template, imported) = one(
        r#"{ "name": "a/b", "packages": [{"registryType": "oci", "identifier": "a/b",
             "runtimeArguments": [
               {"type": "named", "name": "-e", "value": "PIN=s3cr3t-1", "isSecret": true},
               {"type": "named", "name": "-e", "value": "MODE=fast"}],
             "packageArguments": [
               {"type": "positional", "value": "serve"},
               {"type": "named", "name": "--user", "value": "s3cr3t-2", "isSecret": true},
               {"type": "positional", "value": "https://u:s3cr3t-3@h/x"},
               {"type": "positional", "value": "--password=s3cr3t-4"},
               {"type": "named", "name": "--level", "value": "high"}],
             "environmentVariables": [
               {"name": "LOGIN", "value": "s3cr3t-5", "isSecret": true},
               {"name": "MAX_TOKENS", "format": "number", "default": "100"}]}]}"#,
    );
    assert!(!format!("{imported:?}").contains("s3cr3t"), "{imported:?}");
    let secrets = ["pin", "user", "url", "password", "login"];
    let told = template.resolve(&settings(&[])).expect_err("incomplete");
    assert_eq!(told.problems.len(), secrets.len(), "{told}");
    let given = secrets.map(|name| (name, name));
    let spec = template.resolve(&settings(&given)).expect("complete");
    assert_eq!(spec.command.expect("a command"), ["serve"]);
    let words = spec.arguments.iter();
    let words: Vec<_> = words.map(|word| (&*word.value, word.sensitive)).collect();
    assert_eq!(
        words,
        [
            ("--user", true),
            ("user", true),
            ("url", true),
            ("--password=password", true),
            ("--level", false),
            ("high", false)
        ]
    );
    assert!(spec.env["PIN"].sensitive && spec.env["LOGIN"].sensitive);
    assert_eq!(spec.env["MODE"].value, "fast");
    assert_eq!(spec.env["MAX_TOKENS"].value, "100");
}

/// The template of a package with more members.
fn package(more: &str) -> (Template, Imported) {
    one(&format!(
        r#"{{"name": "a/b", "packages": [{{"registryType": "oci", {more}}}]}}"#
    ))
}

#[test]
fn an_image_is_taken_from_the_registry_that_is_named() {
    for (base, identifier, image) in [
        ("https://ghcr.io", "acme/weather", "ghcr.io/acme/weather:1"),
        ("https://ghcr.io/", "ghcr.io/acme/w", "ghcr.io/acme/w:1"),
        ("https://docker.io", "acme/weather", "acme/weather:1"),
        (
            "https://registry.hub.docker.com",
            "acme/weather",
            "acme/weather:1",
        ),
        (
            "http://localhost:5000",
            "weather",
            "localhost:5000/weather:1",
        ),
        ("https://docker.io", "ghcr.io/acme/w", "ghcr.io/acme/w:1"),
    ] {
        let (template, _) = package(&format!(
            r#""registryBaseUrl": "{base}", "identifier": "{identifier}", "version": "1""#
        ));
        assert_eq!(template.image, image);
    }
}

#[test]
fn variables_within_values_keep_their_defaults_and_the_text_around_them() {
    let (template, imported) = package(
        r#""identifier": "a/b",
           "transport": {"type": "streamable-http", "url": "http://localhost:{port}/rpc"},
           "runtimeArguments": [
             {"type": "named", "name": "-e", "value": "HOST={host}", "variables": {"host": {"default": "db"}}},
             {"type": "named", "name": "-v", "value": "{notes}:/notes:ro", "variables": {"notes": {"default": "notes"}}}],
           "packageArguments": [
             {"type": "named", "name": "--port", "value": "{port}",
              "variables": {"port": {"default": "9000", "format": "number"}}},
             {"type": "named", "name": "--verbose"},
             {"type": "positional", "value": "http://{host}:{door}/x", "valueHint": "address",
              "variables": {"host": {"default": "db"}, "door": {"default": "80"}}}],
           "environmentVariables": [
             {"name": "LOGIN", "value": "user:{pass}", "description": "Who.",
              "variables": {"pass": {"isSecret": true, "isRequired": true}}}]"#,
    );
    let path = "/rpc".to_owned();
    assert_eq!(template.transport, Transport::Http { port: 9000, path });
    let told = template.resolve(&settings(&[])).expect_err("incomplete");
    assert_eq!(told.problems.len(), 1, "{told}");
    assert!(told.to_string().contains("user:{pass}"), "{told}");
    let resolved = |verbose| {
        let given = [("login", "user:x"), ("verbose", verbose)];
        let spec = template.resolve(&settings(&given)).expect("complete");
        let words = spec.arguments.iter().map(|word| word.value.clone());
        (words.collect::<Vec<_>>().join(" "), spec)
    };
    assert_eq!(resolved("true").0, "--port 9000 --verbose http://db:80/x");
    let (words, spec) = resolved("false");
    assert_eq!(words, "--port 9000 http://db:80/x");
    assert_eq!(spec.env["HOST"].value, "db");
    assert!(spec.env["LOGIN"].sensitive);
    assert_eq!(spec.volumes[0].source, "notes");
    assert!(spec.volumes[0].read_only);
    let notes = imported.notes.join("\n");
    assert!(
        notes.contains("--verbose was taken for a switch"),
        "{notes}"
    );
}

#[test]
fn flags_of_docker_run_swallow_no_words() {
    for (args, image) in [
        (r#""run", "-P", "mcp/x:1", "serve""#, "mcp/x:1"),
        (
            r#""run", "--no-healthcheck", "mcp/x:1", "serve""#,
            "mcp/x:1",
        ),
        (
            r#""container", "run", "-itP", "mcp/x:1", "serve""#,
            "mcp/x:1",
        ),
        (r#""run", "--rm=true", "--", "mcp/x:1", "serve""#, "mcp/x:1"),
        (
            r#""run", "-ieFOO=bar", "-p8080:80", "mcp/x:1", "serve""#,
            "mcp/x:1",
        ),
        (
            r#""run", "-u", "0", "-w=/x", "mcp/x:1", "serve""#,
            "mcp/x:1",
        ),
    ] {
        let text =
            format!(r#"{{"mcpServers": {{"x": {{"command": "docker", "args": [{args}]}}}}}}"#);
        let (template, _) = one(&text);
        assert_eq!(template.image, image, "{args}");
        let command = template.command.expect("a command");
        assert_eq!(command, ["serve"], "{args}");
    }
    let (template, imported) = one(r#"{"mcpServers": {"x": {"command": "docker",
            "args": ["run", "-eFOO=bar", "--network=host", "-v/srv/x:/x:ro,z", "mcp/x:1"]}}}"#);
    let spec = template.resolve(&settings(&[])).expect("complete");
    assert_eq!(spec.env["FOO"].value, "bar");
    assert_eq!(spec.volumes[0].target, "/x");
    assert!(spec.volumes[0].read_only);
    let notes = imported.notes.join("\n");
    assert!(notes.contains("--network host was left out"), "{notes}");
}
