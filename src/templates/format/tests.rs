use super::*;
use crate::templates::{
    property::ArgumentRule,
    spec::{Network, StdioMode, Transport},
};

fn read_text(text: &str) -> Result<Template, Vec<String>> {
    let name = ServerId::try_from("sample").expect("a name");
    read(&name, Origin::BuiltIn, "sample/template.json", text)
        .map_err(|findings| findings.iter().map(ToString::to_string).collect())
}

fn template(text: &str) -> Template {
    read_text(text).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

/// Written as such files are.
const EXISTING: &str = r#"{
  "name": "Weather Server",
  "description": "Forecasts",
  "version": "1.0.0",
  "author": "Somebody",
  "category": "General",
  "tags": ["weather"],
  "docker_image": "example/weather",
  "docker_tag": "1.2",
  "ports": { "7071": 7071 },
  "command": [],
  "transport": { "default": "http", "supported": ["http", "stdio"] },
  "capabilities": [{ "name": "x", "description": "y" }],
  "volumes": { "/srv/weather": "/data:ro" },
  "env_vars": { "MODE": "fast", "RETRIES": 3 },
  "config_schema": {
    "type": "object",
    "properties": {
      "token": { "type": "string", "required": true, "env_mapping": "WEATHER_TOKEN" },
      "units": { "type": "string", "default": "metric" }
    }
  },
  "tools": [{
    "name": "forecast", "description": "Tomorrow",
    "parameters": [{ "name": "city", "type": "string", "required": true, "description": "Where" }]
  }],
  "tool_discovery": "dynamic",
  "tool_endpoint": "/tools",
  "has_image": true,
  "origin": "internal",
  "colour": "blue"
}"#;

#[test]
fn an_existing_file_is_understood() {
    let template = template(EXISTING);
    assert_eq!(template.title, "Weather Server");
    assert_eq!(template.image, "example/weather:1.2");
    assert_eq!(
        template.transport,
        Transport::Http {
            port: 7071,
            path: "/mcp".into()
        }
    );
    assert_eq!(template.command, None);
    assert_eq!(template.env["RETRIES"].value, "3");
    assert!(template.volumes[0].read_only && template.volumes[0].target == "/data");
    let token = template.property("token").expect("a setting");
    assert!(token.required && token.sensitive);
    let tool: Json = serde_json::from_str(template.tools[0].get()).expect("JSON");
    assert_eq!(
        tool["inputSchema"],
        serde_json::json!({"type": "object", "required": ["city"],
            "properties": {"city": {"type": "string", "description": "Where"}}})
    );
    let warnings: Vec<_> = template.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "sample/template.json:20:7: config_schema.properties.units: has no effect: give it \
             `env_mapping`, `command_arg` or `volume_mount`",
            "sample/template.json:31:3: colour: is not known and has no effect",
        ]
    );
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_cure() {
    let findings = read_text(
        r#"{
  "docker_tag": "1",
  "transport": { "default": "carrier pigeon", "port": 70000 },
  "env_vars": { "bad name": "x" },
  "volumes": ["/etc:/data"],
  "config_schema": {
    "properties": {
      "a": { "type": "strng", "env_mapping": "A" },
      "b": { "type": "string", "env_mapping": 5 }
    }
  },
  "tools": [{ "description": "nameless" }],
  "isolation": { "network": "egress", "memory": { "value": "2GiB" }, "cpus": "many" },
  "stdio_mode": "per-planet"
}"#,
    )
    .expect_err("full of mistakes");
    for expected in [
        "sample/template.json:1:1: docker_image: is missing: name the image",
        "sample/template.json:3:29: transport.default: expected \"stdio\"",
        "sample/template.json:3:55: transport.port: expected a whole number from 1 to 65535",
        "sample/template.json:4:17: env_vars.bad name: cannot be a variable",
        "sample/template.json:5:15: volumes: \"/etc\" is not given to a server",
        "sample/template.json:8:22: config_schema.properties.a.type: expected \"string\", \"integer\"",
        "sample/template.json:9:7: config_schema.properties.b.env_mapping: expected the name",
        "sample/template.json:12:13: tools: has no `name`",
        "sample/template.json:13:29: isolation.network: is looser than usual: say why with \
         {\"value\": \"egress\", \"reason\": \"..\"}",
        "isolation.memory: is looser than usual",
        "isolation.cpus: expected a number",
        "sample/template.json:14:17: stdio_mode: expected",
    ] {
        assert!(
            findings.iter().any(|finding| finding.contains(expected)),
            "{expected}\nis not in\n{findings:#?}"
        );
    }
}

#[test]
fn text_that_is_no_json_is_told_with_its_line() {
    let findings = read_text("{\n  \"docker_image\": \"x\",\n}").expect_err("a trailing comma");
    assert!(
        findings[0].starts_with("sample/template.json:3:1"),
        "{findings:?}"
    );
    assert!(read_text("[]").is_err());
    assert!(read_text("").is_err());
    let findings = read_text(r#"{"docker_image": "x", "docker_image": "y"}"#).expect_err("twice");
    assert!(findings[0].contains("duplicate key"), "{findings:?}");
}

#[test]
fn a_schema_that_is_elsewhere_is_not_fetched() {
    for reference in ["http://127.0.0.1:9/schema.json", "file:///etc/passwd"] {
        let text = format!(
            r#"{{"docker_image": "x", "config_schema": {{"properties": {{"a": {{"$ref": "{reference}", "env_mapping": "A"}}}}}}}}"#
        );
        let findings = read_text(&text).expect_err("not fetched");
        assert!(findings[0].contains("config_schema"), "{findings:?}");
    }
    // Within the file it may point wherever it likes.
    let within = template(
        r##"{"docker_image": "x", "config_schema": {
            "$defs": {"port": {"type": "integer"}},
            "properties": {"a": {"$ref": "#/$defs/port", "env_mapping": "A"}}}}"##,
    );
    assert_eq!(within.properties.len(), 1);
}

#[test]
fn limits_are_loosened_with_a_reason_and_tightened_without() {
    let template = template(
        r#"{"docker_image": "x", "stdio_mode": "per-session", "isolation": {
            "memory": "64MiB",
            "network": {"value": "egress", "reason": "asks the web"},
            "user": {"value": "", "reason": "the image brings its own"},
            "capabilities": {"value": ["CAP_CHOWN"], "reason": "gives files away"},
            "read_only": {"value": false, "reason": "writes beside its program"}}}"#,
    );
    let isolation = &template.isolation;
    assert_eq!(isolation.memory, 64 << 20);
    assert_eq!(isolation.network, Network::Egress);
    assert_eq!(isolation.capabilities, ["CHOWN"]);
    let loosened: Vec<_> = isolation
        .loosened
        .iter()
        .map(|one| one.what.as_str())
        .collect();
    assert_eq!(loosened, ["read_only", "user", "network", "capabilities"]);
    let mode = StdioMode::PerSession;
    assert_eq!(template.transport, Transport::Stdio { mode });
    for loose in [
        r#"{"capabilities": {"value": ["ALL"], "reason": "all"}}"#,
        r#"{"network": {"value": "egress", "reason": " "}}"#,
        r#"{"user": "0:0"}"#,
        r#"{"user": "1000:0"}"#,
    ] {
        let text = format!(r#"{{"docker_image": "x", "isolation": {loose}}}"#);
        assert!(read_text(&text).is_err(), "{loose}");
    }
}

#[test]
fn images_have_a_version() {
    for (image, tag, expected) in [
        ("mcp/time", None, "mcp/time:latest"),
        ("mcp/time", Some("2"), "mcp/time:2"),
        ("host:5000/a/b", None, "host:5000/a/b:latest"),
        ("a/b:3", Some("4"), "a/b:3"),
        ("a/b", Some("sha256:00"), "a/b@sha256:00"),
        ("a/b@sha256:00", None, "a/b@sha256:00"),
    ] {
        let tag = tag
            .map(|tag| format!(r#", "docker_tag": "{tag}""#))
            .unwrap_or_default();
        let text = format!(r#"{{"docker_image": "{image}"{tag}}}"#);
        assert_eq!(template(&text).image, expected);
    }
    assert!(read_text(r#"{"docker_image": "a b"}"#).is_err());
}

#[test]
fn flags_and_mounts_of_settings_are_read() {
    let template = template(
        r#"{"docker_image": "x", "config_schema": {"properties": {
            "a": {"command_arg": "--a={}"}, "b": {"command_arg": true},
            "c": {"volume_mount": "/data"}}}}"#,
    );
    let rule = |name| template.property(name).expect("a setting");
    assert_eq!(
        rule("a").argument,
        Some(ArgumentRule::Flag("--a={}".into()))
    );
    assert_eq!(rule("b").argument, Some(ArgumentRule::Plain));
    let mount = rule("c").mount.as_ref().expect("a mount");
    assert_eq!(mount.target.as_deref(), Some("/data"));
}

/// The example of `docs/templates.md` is a template and runs what is said there.
#[test]
fn the_documented_example_is_understood() {
    let document = include_str!("../../../docs/templates.md");
    let (_, example) = document.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let template = template(example);
    assert!(template.warnings.is_empty(), "{:?}", template.warnings);
    let settings = crate::templates::Settings {
        config: [("api_key".to_owned(), "KEY".to_owned())].into(),
        ..crate::templates::Settings::default()
    };
    let spec = template.resolve(&settings).expect("it fits");
    let entrypoint = spec.entrypoint.into_iter().flatten();
    let command = spec.command.into_iter().flatten();
    let arguments = spec.arguments.into_iter().map(|word| word.value);
    let words: Vec<_> = entrypoint.chain(command).chain(arguments).collect();
    assert!(document.contains(&words.join(" ")), "{words:?}");
    for key in DESCRIPTIVE {
        assert!(document.contains(&format!("`{key}`")), "{key}");
    }
}
