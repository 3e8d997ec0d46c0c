use std::path::PathBuf;

use super::*;
use crate::config::{Config, ConfigErrors, Loaded, load};

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("a file");
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str) -> Result<Loaded, ConfigErrors> {
        let file = Some(self.path(name));
        load(&Sources {
            file,
            ..Sources::default()
        })
    }

    /// Findings, without the directory's name.
    fn errors(&self, name: &str) -> Vec<String> {
        let errors = self.load(name).expect_err("a bad file");
        let directory = format!("{}/", self.0.path().display());
        let texts = errors.0.iter().map(ToString::to_string);
        texts.map(|text| text.replace(&directory, "")).collect()
    }
}

#[test]
fn the_three_languages_say_the_same() {
    let files = Files::new(&[
        (
            "f.toml",
            "[node]\ndrain = \"5s\"\n[limits]\nbatch = 7\n[cache]\nearly_refresh = 0.5\n[servers.a]\nreplicas = [\"http://x/\"]\n",
        ),
        (
            "f.yaml",
            "# fleet\nnode:\n  drain: 5s\n  name:\nlimits: { batch: 7 }\ncache:\n  early_refresh: 0.5\nservers:\n  a:\n    replicas:\n      - http://x/\n",
        ),
        (
            "f.json",
            "{\"node\": {\"drain\": \"5s\", \"name\": null}, \"limits\": {\"batch\": 7},\n \"cache\": {\"early_refresh\": 0.5}, \"servers\": {\"a\": {\"replicas\": [\"http://x/\"]}}}",
        ),
    ]);
    let read = |name| {
        files
            .load(name)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .config
    };
    let toml = read("f.toml");
    assert_eq!(toml.limits.batch, 7);
    assert_eq!(toml.servers.len(), 1);
    assert_eq!(read("f.yaml"), toml);
    assert_eq!(read("f.json"), toml);
}

#[test]
fn places_are_exact_in_every_language() {
    let files = Files::new(&[
        ("f.toml", "[node]\n  drian = 1\n  demo = 3\n"),
        ("f.yaml", "node:\n  drian: 1\n  demo: 3\n"),
        ("f.json", "{\"node\": {\n  \"drian\": 1,\n  \"demo\": 3}}"),
    ]);
    let lines = [
        ("f.toml", 2, 3, 10),
        ("f.yaml", 2, 3, 9),
        ("f.json", 2, 3, 11),
    ];
    for (name, line, key_column, value_column) in lines {
        assert_eq!(
            files.errors(name),
            [
                format!(
                    "{name}:{line}:{key_column}: node.drian: unknown key; did you mean `node.drain`?"
                ),
                format!(
                    "{name}:{}:{value_column}: node.demo: expected true or false, found 3",
                    line + 1
                ),
            ]
        );
    }
}

#[test]
fn syntax_errors_have_a_place_in_every_language() {
    let files = Files::new(&[
        ("f.toml", "[node]\nlisten == 1\n"),
        ("f.yaml", "node:\n  listen: [1\n"),
        ("f.json", "{\"node\": {\n  \"listen\": }}"),
        ("twice.json", "{\"node\": {},\n \"node\": {}}"),
        ("twice.yaml", "node: {}\nnode: {}\n"),
        ("twice.toml", "[node]\n[node]\n"),
        ("list.yaml", "- a\n"),
        ("f.ini", ""),
    ]);
    for name in [
        "f.toml",
        "f.yaml",
        "f.json",
        "twice.json",
        "twice.yaml",
        "twice.toml",
        "list.yaml",
        "f.ini",
        "absent.toml",
    ] {
        let errors = files.errors(name);
        assert!(errors[0].starts_with(&format!("{name}:")), "{errors:?}");
        assert!(!errors[0].contains('\n'), "{errors:?}");
    }
    assert!(
        files.errors("f.json")[0].starts_with("f.json:2:"),
        "{:?}",
        files.errors("f.json")
    );
    assert!(files.errors("twice.json")[0].starts_with("twice.json:2:2: duplicate key"));
}

#[test]
fn empty_files_are_the_defaults() {
    let files = Files::new(&[("f.toml", ""), ("f.yaml", "# nothing\n"), ("f.json", "{}")]);
    for name in ["f.toml", "f.yaml", "f.json"] {
        assert_eq!(
            files.load(name).expect("valid").config,
            Config::default(),
            "{name}"
        );
    }
}

#[test]
fn flags_outrank_everything() {
    let files = Files::new(&[(
        "f.toml",
        "[node]\nlisten = \"127.0.0.1:1\"\n[servers.a]\ncommand = [\"x\"]\n[servers.b]\nurl = \"http://b/\"\n",
    )]);
    let sources = Sources {
        file: Some(files.path("f.toml")),
        environment: vec![
            ("REDIS_URL".into(), "redis://e:1".into()),
            ("MCP_FLEET__NODE__LISTEN".into(), "127.0.0.1:2".into()),
        ],
        flags: Overrides {
            listen: Some("127.0.0.1:3".into()),
            redis: Some("redis://f:1".into()),
            servers: vec!["a=http://new/mcp?x=1".into(), "c=https://c/mcp".into()],
            mcp_json: Vec::new(),
        },
    };
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.node.listen.port(), 3);
    assert_eq!(
        loaded.config.redis.expect("a store").url.reveal(),
        "redis://f:1"
    );
    let servers: Vec<_> = loaded
        .config
        .servers
        .iter()
        .map(|server| {
            (
                server.id.as_str(),
                server.origin,
                server.replicas[0].endpoint.to_string(),
            )
        })
        .collect();
    assert_eq!(
        servers,
        [
            ("b", "config", "http://b/".to_owned()),
            ("a", "--server", "http://new/mcp?x=1".to_owned()),
            ("c", "--server", "https://c/mcp".to_owned()),
        ]
    );
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn wrong_flags_are_named() {
    let flags = Overrides {
        listen: Some("here".into()),
        redis: Some("http://x".into()),
        servers: vec![
            "http://x/mcp".into(),
            "a=nowhere".into(),
            "b=http://b/".into(),
            "b=http://c/".into(),
        ],
        mcp_json: vec!["absent.json".into()],
    };
    let errors = load(&Sources {
        flags,
        ..Sources::default()
    })
    .expect_err("five mistakes");
    let text = errors.to_string();
    for expected in [
        "absent.json:1:1: cannot read the file",
        "--listen: node.listen: expected an address",
        "--redis: redis.url: expected an address",
        "--server: expected NAME=URL, found \"http://x/mcp\"",
        "--server: servers.a.url: expected an address",
        "--server: servers.b: a second server of that name",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}
