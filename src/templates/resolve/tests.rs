use serde_json::{Value as Json, json};

use super::*;
use crate::{
    ids::ServerId,
    templates::{
        format,
        spec::{Network, StdioMode, Transport},
        template::Origin,
    },
};

fn template(value: &Json) -> Template {
    let name = ServerId::try_from("sample").expect("a name");
    let text = value.to_string();
    format::read(&name, Origin::BuiltIn, "sample.json", &text).unwrap_or_else(|findings| {
        panic!("{findings:?}");
    })
}

fn sample() -> Template {
    template(&json!({
        "name": "Sample", "version": "2.1", "docker_image": "example/sample", "docker_tag": "3",
        "transport": {"default": "http", "port": 7071},
        "env_vars": {"MODE": "plain"},
        "config_schema": {
            "type": "object",
            "required": ["api_key", "dirs"],
            "properties": {
                "api_key": {"type": "string", "minLength": 8, "env_mapping": "SAMPLE_KEY", "sensitive": true,
                            "description": "Key of the service."},
                "dirs": {"type": "string", "env_mapping": "DIRS", "volume_mount": true, "command_arg": true},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 80, "env_mapping": "PORT"},
                "level": {"type": "string", "enum": ["low", "high"], "default": "low", "command_arg": "--level"},
                "verbose": {"type": "boolean", "default": false, "command_arg": "--verbose"},
                "tags": {"type": "array", "items": {"type": "string"}, "env_mapping": "TAGS", "env_separator": ";"},
            },
        },
    }))
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn flags(config: &[(&str, &str)]) -> Settings {
    Settings {
        config: pairs(config),
        ..Settings::default()
    }
}

fn problems(template: &Template, given: &Settings) -> Vec<String> {
    let errors = template.resolve(given).expect_err("problems");
    errors.problems.iter().map(ToString::to_string).collect()
}

fn words(values: &[Value]) -> Vec<&str> {
    values.iter().map(|value| value.value.as_str()).collect()
}

#[test]
fn flags_outrank_the_file_which_outranks_defaults() {
    let spec = sample()
        .resolve(&Settings {
            config: pairs(&[
                ("api_key", "12345678"),
                ("level", "high"),
                ("verbose", "yes"),
            ]),
            env: pairs(&[("EXTRA", "x")]),
            file: Some(
                json!({"dirs": "/srv/a /srv/b", "level": "low", "port": 8080, "tags": ["x", "y"]}),
            ),
        })
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(spec.image, "example/sample:3");
    assert_eq!(spec.template_version.as_deref(), Some("2.1"));
    assert_eq!(
        spec.transport,
        Transport::Http {
            port: 7071,
            path: "/mcp".into()
        }
    );
    assert_eq!(
        words(&spec.arguments),
        ["/mnt/srv/a", "/mnt/srv/b", "--level", "high", "--verbose"]
    );
    let env: Vec<_> = spec
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.value.as_str()))
        .collect();
    assert_eq!(
        env,
        [
            ("DIRS", "/mnt/srv/a /mnt/srv/b"),
            ("EXTRA", "x"),
            ("MODE", "plain"),
            ("PORT", "8080"),
            ("SAMPLE_KEY", "12345678"),
            ("TAGS", "x;y"),
        ]
    );
    assert_eq!(spec.volumes.len(), 2);
    assert_eq!(spec.volumes[1].source, "/srv/b");
    // What nobody described may be a secret.
    assert!(spec.env["SAMPLE_KEY"].sensitive && spec.env["EXTRA"].sensitive);
    assert!(!spec.env["PORT"].sensitive);
}

#[test]
fn everything_wrong_is_told_at_once_and_nothing_of_secrets() {
    let given = Settings {
        config: pairs(&[
            ("api_key", "hunter2"),
            ("port", "70000"),
            ("lvel", "low"),
            ("verbose", "maybe"),
            ("level", "medium"),
        ]),
        env: pairs(&[("bad name", "x")]),
        file: Some(json!({"tags": ["a", 5], "SAMPLE_KEY": "hunter2"})),
    };
    let told = problems(&sample(), &given);
    let expected = [
        "SAMPLE_KEY: is not a setting of this template; did you mean `api_key`?",
        "lvel: is not a setting of this template; did you mean `level`?",
        "verbose: expected true or false, found \"maybe\"",
        "api_key: expected at least 8 characters, found something else (not shown, it is a secret)",
        "port: expected at most 65535, found 70000",
        "level: expected one of \"low\", \"high\", found \"medium\"",
        "tags: at 1: expected",
        "dirs: is required: give -c dirs=VALUE, -e DIRS=VALUE or `dirs` in the file (-f)",
        "bad name: cannot be a variable",
    ];
    for expected in expected {
        assert!(
            told.iter().any(|problem| problem.starts_with(expected)),
            "{expected}\nis not in\n{told:#?}"
        );
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    let all = format!("{told:?} {given:?}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn a_nul_is_refused_however_it_is_given() {
    let mut given = flags(&[("dirs", "/srv/a"), ("api_key", "12345\x006789")]);
    given.env = pairs(&[("EXTRA", "a\0b")]);
    given.file = Some(json!({"tags": ["a", "b\0c"]}));
    let told = problems(&sample(), &given);
    assert_eq!(told.len(), 3, "{told:#?}");
    for (key, problem) in ["api_key: ", "tags: ", "EXTRA: "].iter().zip(&told) {
        let is_told = problem.starts_with(key) && problem.contains("NUL");
        assert!(is_told, "{told:#?}");
    }
}

#[test]
fn a_required_secret_is_asked_for_in_words() {
    let told = problems(&sample(), &flags(&[("dirs", "/srv/a")]));
    assert_eq!(
        told,
        [
            "api_key: is required (Key of the service): give -c api_key=VALUE, -e SAMPLE_KEY=VALUE or \
             `api_key` in the file (-f)"
        ]
    );
}

#[test]
fn a_variable_of_a_setting_is_that_setting() {
    let template = sample();
    let mut given = flags(&[("dirs", "/srv/a")]);
    given.env = pairs(&[("SAMPLE_KEY", "12345678"), ("PORT", "x")]);
    let told = problems(&template, &given);
    assert_eq!(told, ["port: expected a whole number, found \"x\""]);
    given.env = pairs(&[("SAMPLE_KEY", "12345678"), ("PORT", "81")]);
    let spec = template.resolve(&given).expect("fits");
    assert_eq!(spec.env["PORT"].value, "81");
    given.config.insert("port".into(), "82".into());
    let told = problems(&template, &given);
    assert_eq!(
        told,
        ["port: is given twice: by itself and as the variable PORT"]
    );
}

#[test]
fn secrets_are_in_no_debug_output() {
    let given = flags(&[("dirs", "/srv/a"), ("api_key", "hunter2hunter2")]);
    let spec = sample().resolve(&given).expect("fits");
    let shown = format!("{given:?} {spec:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("***"), "{shown}");
}

#[test]
fn mounts_are_checked_and_say_where() {
    let template = template(&json!({
        "docker_image": "x/y",
        "config_schema": {"properties": {
            "data": {"type": "string", "volume_mount": {"target": "/data", "read_only": true}, "env_mapping": "DATA"},
            "more": {"type": "array", "volume_mount": "/more", "command_arg": "--dir={}"},
        }},
    }));
    let given = flags(&[("data", "/srv/one"), ("more", "/a/x,/b/y:/elsewhere:ro")]);
    let spec = template.resolve(&given).expect("fits");
    let shown: Vec<_> = spec
        .volumes
        .iter()
        .map(|mount| format!("{}:{}:{}", mount.source, mount.target, mount.read_only))
        .collect();
    assert_eq!(
        shown,
        [
            "/srv/one:/data:true",
            "/a/x:/more/x:false",
            "/b/y:/elsewhere:true"
        ]
    );
    assert_eq!(
        words(&spec.arguments),
        ["--dir=/more/x", "--dir=/elsewhere"]
    );
    assert_eq!(spec.env["DATA"].value, "/data");
    let told = problems(
        &template,
        &flags(&[("data", "../x"), ("more", "/var/run/docker.sock,/a")]),
    );
    assert!(told[0].contains("expected an absolute path"), "{told:?}");
    assert!(told[1].contains("is not given to a server"), "{told:?}");
    let told = problems(&template, &flags(&[("more", "/a/x,/b/x")]));
    assert!(
        told[0].contains("two sources would appear at /more/x"),
        "{told:?}"
    );
}

#[test]
fn conditions_between_settings_are_explained() {
    let template = template(&json!({
        "docker_image": "x/y",
        "config_schema": {
            "properties": {
                "api_key": {"type": "string", "env_mapping": "A"},
                "user": {"type": "string", "env_mapping": "U"},
                "password": {"type": "string", "env_mapping": "P"},
                "oauth": {"type": "boolean", "env_mapping": "O", "default": false},
                "provider": {"type": "string", "env_mapping": "R"},
            },
            "anyOf": [{"required": ["api_key"]}, {"required": ["user", "password"]}],
            "if": {"properties": {"oauth": {"const": true}}, "required": ["oauth"]},
            "then": {"required": ["provider"]},
        },
    }));
    let told = problems(&template, &flags(&[("oauth", "true")]));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.contains(&"give one of these: api_key; or user and password".to_owned()),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|problem| problem.starts_with("provider: is required")),
        "{told:?}"
    );
    assert!(template.resolve(&flags(&[("api_key", "x")])).is_ok());
}

#[test]
fn values_within_an_object_that_holds_a_secret_are_not_shown() {
    let template = template(&json!({
        "docker_image": "x/y",
        "config_schema": {"properties": {"db": {
            "type": "object", "env_mapping": "DB",
            "properties": {"port": {"type": "integer"}, "password": {"type": "string", "maxLength": 3}},
        }}},
    }));
    assert!(template.properties[0].sensitive);
    let told = problems(
        &template,
        &flags(&[("db", r#"{"port":"x","password":"hunter2"}"#)]),
    );
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!told.concat().contains("hunter2"), "{told:?}");
}

#[test]
fn defaults_of_a_template_without_settings_run_isolated() {
    let template = template(&json!({"docker_image": "x/y@sha256:ab"}));
    let spec = template.resolve(&Settings::default()).expect("fits");
    assert_eq!(spec.image, "x/y@sha256:ab");
    assert_eq!(
        spec.transport,
        Transport::Stdio {
            mode: StdioMode::Shared
        }
    );
    assert!(spec.isolation.read_only && spec.isolation.network == Network::Internal);
    let told = problems(&template, &flags(&[("x", "1")]));
    assert_eq!(
        told,
        ["x: is not a setting of this template, which has none"]
    );
}
