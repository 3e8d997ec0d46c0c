use std::{collections::BTreeSet, path::Path};

use super::*;
use crate::{bridge::backend::Mode, config::tree::Value};

const DEFAULT: &str = include_str!("../../config/default.toml");

fn errors(text: &str) -> Vec<String> {
    let errors = Config::from_toml(text).expect_err("a bad configuration");
    errors.0.iter().map(ToString::to_string).collect()
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fleet.toml");
    std::fs::write(&file, text).expect("a file");
    load(&Sources {
        file: Some(file),
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: Overrides::default(),
    })
}

/// The file with its commented settings switched on, `_file` keys apart.
fn all_switched_on(text: &str, files: bool) -> String {
    let switched = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            setting.to_owned()
        }
        _ => line.to_owned(),
    };
    let is_file = |line: &str| {
        line.split('=')
            .next()
            // (A file of certificates is no secret, and stands for nothing else.)
            .is_some_and(|key| key.trim().ends_with("_file") && key.trim() != "ca_file")
    };
    let has_file = |line: &str| {
        [
            "secret",
            "previous_secret",
            "url",
            "password",
            "otlp_headers",
        ]
        .iter()
        .any(|key| line.starts_with(&format!("{key} =")))
    };
    text.lines()
        .map(switched)
        .filter(|line| {
            if files {
                !has_file(line)
            } else {
                !is_file(line)
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn written_keys(table: &tree::Table, path: &str, keys: &mut BTreeSet<String>) {
    for entry in &table.0 {
        let name = if path == "servers" { "*" } else { &entry.key };
        let key = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let is_map = [
            "servers.*.headers",
            "servers.*.env",
            "servers.*.tool_rate_limits",
        ]
        .contains(&key.as_str());
        match &entry.value.value {
            Value::Table(table) if !is_map => written_keys(table, &key, keys),
            _ => {
                keys.insert(key);
            }
        }
    }
}

#[test]
fn the_default_file_says_what_the_defaults_are() {
    assert_eq!(Config::from_toml(DEFAULT), Ok(Config::default()));
    assert_eq!(Config::from_toml(""), Ok(Config::default()));
}

#[test]
fn the_default_file_has_every_key_and_no_other() {
    let mut findings = Findings::default();
    let mut written = BTreeSet::new();
    for files in [false, true] {
        let text = all_switched_on(DEFAULT, files);
        written_keys(&source::toml_text(&text, &mut findings), "", &mut written);
    }
    let tree = tree::Table::default();
    Config::read(
        Gathered {
            tree,
            imported: Vec::new(),
        },
        &mut findings,
    );
    let is_leaf = |key: &String| {
        let below = format!("{key}.");
        !findings.known.iter().any(|known| known.starts_with(&below)) && key != "servers"
    };
    let known: BTreeSet<_> = findings
        .known
        .iter()
        .filter(|key| is_leaf(key))
        .cloned()
        .collect();
    assert_eq!(written, known);
    assert!(known.len() > 70, "{known:?}");
}

#[test]
fn the_settings_without_a_default_are_valid_examples() {
    // What they name as files does not exist here.
    let text = all_switched_on(DEFAULT, false)
        .replace(", X-Tenant = { file = \"secrets/tenant\" }", "")
        // Certificates are for connections with TLS.
        .replace("\"redis://", "\"rediss://");
    let config = Config::from_toml(&text).expect("a valid file");
    assert_eq!(config.servers.len(), 3);
    assert_eq!(
        config.redis,
        Some(Redis {
            ca_file: Some("secrets/redis-ca.pem".into()),
            ..Redis::at("rediss://:secret@127.0.0.1:6379")
        })
    );
    assert_eq!(config.auth.mode, Some(AuthMode::None));
}

#[test]
fn certificates_to_trust_are_found_beside_the_file_that_names_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("node.toml");
    let text = "[redis]\nurl = \"rediss://h:1\"\nca_file = \"tls/ca.pem\"\n";
    std::fs::write(&file, text).expect("a file");
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let redis = load(&sources).expect("a valid file").config.redis;
    let trusted = redis.expect("a section").ca_file;
    assert_eq!(trusted, Some(directory.path().join("tls/ca.pem")));

    let variable = Sources {
        environment: vec![
            ("REDIS_URL".into(), "rediss://h:1".into()),
            ("MCP_FLEET__REDIS__CA_FILE".into(), "/tls/ca.pem".into()),
        ],
        ..Sources::default()
    };
    let redis = load(&variable).expect("valid variables").config.redis;
    assert_eq!(
        redis.expect("a section").ca_file,
        Some("/tls/ca.pem".into())
    );
    let found = errors("[redis]\nurl = \"rediss://h:1\"\nca_file = \"\"\n");
    assert!(found[0].contains("redis.ca_file"), "{found:?}");
    // Nobody should believe that a plain connection is protected.
    let found = errors("[redis]\nurl = \"redis://h:1\"\nca_file = \"ca.pem\"\n");
    assert!(found[0].contains("redis.ca_file"), "{found:?}");
    assert!(found[0].contains("rediss://"), "{found:?}");
}

#[test]
fn every_configuration_file_we_give_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    let entries = ["config", "deploy/compose"]
        .map(|directory| std::fs::read_dir(root.join(directory)).expect("the directory"));
    for entry in entries.into_iter().flatten() {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|ending| ending == "toml") {
            let sources = Sources {
                file: Some(file),
                ..Sources::default()
            };
            load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
            files += 1;
        }
    }
    assert!(files >= 4);
}

#[test]
fn all_errors_are_reported_with_place_key_and_cure() {
    let found = errors(
        "[node]\nlisten = \"8080\"\ndrian = \"1s\"\n\n[cache]\nlists = { fresh = 5, max_stale = \"1m\" }\n\
         \n[server.demo]\nurl = \"x\"\n\n[limits]\nlisten = 1\nbatch = \"many\"\n",
    );
    let expected = [
        "configuration:2:10: node.listen: expected an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\", found \"8080\"",
        "configuration:3:1: node.drian: unknown key; did you mean `node.drain`?",
        "configuration:6:19: cache.lists.fresh: expected a duration from 0s to 7d in quotes with its unit, such as \"250ms\", \"30s\", \"5m\", \"1h30m\", found 5",
        "configuration:6:34: cache.lists.max_stale: has to be at least `fresh` and `stale` together, 15m: it is the greatest age of an answer",
        "configuration:8:2: server: unknown key; did you mean `servers`?",
        "configuration:12:1: limits.listen: unknown key; did you mean `node.listen`?",
        "configuration:13:9: limits.batch: expected a whole number from 1 to 10000, found \"many\"",
    ];
    assert_eq!(found, expected);
}

#[test]
fn all_syntax_errors_are_reported_with_their_place() {
    let found = errors("[node]\nlisten = \nname = \"a\n[cache\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found[0].starts_with("configuration:2:"), "{found:?}");
}

#[test]
fn an_unknown_key_without_a_likeness_lists_what_is_known() {
    let found = errors("[auth]\nxyzzy = 1\n");
    assert_eq!(
        found,
        ["configuration:2:1: auth.xyzzy: unknown key; known here are mode"]
    );
}

#[test]
fn listening_beyond_loopback_takes_a_word() {
    let found = errors("[node]\nlisten = \"0.0.0.0:8080\"\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("configuration:2:10: node.listen: 0.0.0.0:8080"),
        "{found:?}"
    );
    assert!(found[0].contains("mode = \"none\""), "{found:?}");
    assert!(
        Config::from_toml("[node]\nlisten = \"0.0.0.0:8080\"\n[auth]\nmode = \"none\"\n").is_ok()
    );
    let found = errors("[auth]\nmode = \"nine\"\n");
    assert!(
        found[0].ends_with("expected \"none\", found \"nine\"; did you mean \"none\"?"),
        "{found:?}"
    );
}

#[test]
fn servers_are_read_in_their_order() {
    let config = Config::from_toml(
        "[servers.zeta]\nurl = \"http://z/mcp\"\n[servers.alpha]\ncommand = [\"run\", \"it\"]\n\
         env = { KEY = \"value\" }\n[servers.mid]\nreplicas = [\"http://a/\", { url = \"http://b/\", weight = 3 }]\n\
         balance = \"weighted\"\nheaders = { Authorization = \"Bearer x\" }\n",
    )
    .expect("a valid file");
    let names: Vec<_> = config
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    assert_eq!(names, ["zeta", "alpha", "mid"]);
    let Endpoint::Stdio(command) = &config.servers[1].replicas[0].endpoint else {
        panic!("not a command: {:?}", config.servers[1]);
    };
    assert_eq!(command.argv, ["run", "it"]);
    assert_eq!(command.env["KEY"], "value");
    assert_eq!(config.servers[2].replicas[1].weight, 3);
    assert_eq!(config.servers[2].balance, crate::balance::Policy::Weighted);
    assert!(config.servers[2].headers[0].1.is_sensitive());
}

#[test]
fn a_program_has_a_process_per_session_unless_told_otherwise() {
    let command = |more: &str| {
        let text = format!("[servers.a]\ncommand = [\"run\"]\n{more}");
        let config = Config::from_toml(&text).expect("a valid file");
        let Endpoint::Stdio(command) = config.servers[0].replicas[0].endpoint.clone() else {
            panic!("not a command");
        };
        (command.mode, command.max_processes.get())
    };
    assert_eq!(command(""), (Mode::PerSession, 16));
    let told = command("mode = \"shared\"\nmax_processes = 3");
    assert_eq!(told, (Mode::Shared, 3));
    assert_eq!(command("mode = \"per-call\"").0, Mode::PerCall);
}

#[test]
fn a_node_with_programs_says_where_others_reach_it() {
    let program = "[servers.notes]\ncommand = [\"run\"]\n[auth]\nmode = \"none\"\n";
    let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
    let warned = |node: &str, more: &str| {
        let text = format!("{node}{program}{more}");
        let loaded = with_environment(&text, &[]).expect("valid");
        let warnings = loaded.warnings.iter().map(ToString::to_string);
        warnings.collect::<Vec<_>>()
    };
    let wildcard = "[node]\nlisten = \"0.0.0.0:8080\"\n";
    let found = warned(wildcard, redis);
    assert!(
        found.len() == 1 && found[0].contains("node.advertise") && found[0].contains("notes"),
        "{found:?}"
    );
    // Alone, at an address, or with a word for it.
    assert_eq!(warned(wildcard, ""), Vec::<String>::new());
    assert_eq!(
        warned("[node]\nlisten = \"10.0.0.5:8080\"\n", redis),
        Vec::<String>::new()
    );
    let told = format!("{wildcard}advertise = \"10.0.0.5:8080\"\n");
    assert_eq!(warned(&told, redis), Vec::<String>::new());
    for bad in [
        "10.0.0.5",
        "0.0.0.0:80",
        "ftp://a:1",
        "http://a/b",
        "u@a:1",
        "[::]:80",
    ] {
        let found = errors(&format!("[node]\nadvertise = \"{bad}\"\n"));
        assert!(
            found.len() == 1 && found[0].contains("node.advertise"),
            "{bad}: {found:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_server_is_said() {
    let cases = [
        (
            "[servers.a]\nbalance = \"p2c\"",
            "servers.a: does not say how it is reached",
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\ncommand = [\"y\"]",
            "give only one of `url` and `command`",
        ),
        (
            "[servers.a]\nurl = \"127.0.0.1:7071/mcp\"",
            "beginning with http://",
        ),
        (
            "[servers.a]\nurl = \"http://me:pw@x/\"",
            "put it into `headers`",
        ),
        (
            "[servers.a]\ncommand = \"npx -y thing\"",
            "[\"npx\", \"-y\", \"thing\"]",
        ),
        ("[servers.a]\nreplicas = []", "at least one replica"),
        (
            "[servers.a]\nreplicas = [\"http://x/\", \"http://x/\"]",
            "replicas[1]: is the same",
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\nenv = { A = \"b\" }",
            "makes sense with `command` only",
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\nheaders = { Host = \"y\" }",
            "set by the node itself",
        ),
        (
            "[servers.a__b]\nurl = \"http://x/\"",
            "is not a server name",
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\nblance = \"p2c\"",
            "did you mean `servers.a.balance`?",
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\nbalance = \"p3c\"",
            "did you mean \"p2c\"?",
        ),
    ];
    for (text, expected) in cases {
        let found = errors(text);
        assert!(
            found.iter().any(|error| error.contains(expected)),
            "{text}\n{found:?}"
        );
    }
}

#[test]
fn the_environment_outranks_the_file() {
    let file = "[node]\ndrain = \"1s\"\n[servers.my-server]\nurl = \"http://old/\"\n[health]\ninterval = \"50s\"\n";
    let variables = [
        ("MCP_FLEET__NODE__LISTEN", "127.0.0.1:9000"),
        (
            "MCP_FLEET__SERVERS__MY_SERVER__REPLICAS",
            "http://a/mcp, http://b/mcp",
        ),
        ("MCP_FLEET__SERVERS__DEMO2__COMMAND", "run me"),
        ("MCP_FLEET__SERVERS__DEMO2__ENV__API_KEY", "k"),
        ("MCP_FLEET__CACHE__LISTS__FRESH", "1m"),
        ("MCP_FLEET__CACHE__ENGINES", "{ fresh = \"2m\" }"),
        ("MCP_FLEET__LIMITS__BATCH", "7"),
        ("MCP_FLEET__NODE__DEMO", "false"),
        ("MCP_FLEET__NODE__NAME", ""),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("HEALTH_CHECK_INTERVAL", "15"),
        ("UNRELATED", "x"),
    ];
    let config = with_environment(file, &variables)
        .expect("a valid configuration")
        .config;
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.node.drain.as_secs(), 1);
    assert_eq!(config.servers[0].id.as_str(), "my-server");
    assert_eq!(config.servers[0].replicas.len(), 2);
    let Endpoint::Stdio(command) = &config.servers[1].replicas[0].endpoint else {
        panic!("not a command: {:?}", config.servers[1]);
    };
    assert_eq!(
        (command.argv.len(), command.env["API_KEY"].as_str()),
        (2, "k")
    );
    assert_eq!(config.servers[1].origin, "environment");
    assert_eq!(config.cache.lists.fresh.as_secs(), 60);
    assert_eq!(config.cache.engines.fresh.as_secs(), 120);
    assert_eq!(config.limits.batch, 7);
    assert!(!config.node.demo);
    assert_eq!(config.node.name, None);
    assert_eq!(config.redis, Some(Redis::at("redis://127.0.0.1:1")));
    assert_eq!(config.health.interval.as_secs(), 15);
}

#[test]
fn our_variables_outrank_conventional_ones() {
    let variables = [
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("MCP_FLEET__REDIS__URL", "redis://127.0.0.1:2"),
    ];
    let config = with_environment("", &variables).expect("valid").config;
    assert_eq!(config.redis, Some(Redis::at("redis://127.0.0.1:2")));
}

#[test]
fn findings_in_the_environment_name_the_variable() {
    let variables = [
        ("MCP_FLEET__NODE__LISTE", "x"),
        ("MCP_FLEET__LIMITS__BATCH", "many"),
    ];
    let errors = with_environment("", &variables).expect_err("two mistakes");
    let found: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "environment variable MCP_FLEET__LIMITS__BATCH: limits.batch: expected a whole number from 1 to 10000, found \"many\"",
            "environment variable MCP_FLEET__NODE__LISTE: node.liste: unknown key; did you mean `node.listen`?",
        ]
    );
}

#[test]
fn secrets_come_from_files_too_and_are_never_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(directory.path().join("seal"), format!("{secret}\n")).expect("a file");
    let file = directory.path().join("fleet.toml");
    std::fs::write(
        &file,
        "[node]\nsecret_file = \"seal\"\n[redis]\nurl = \"redis://u:hunter2@h:1\"\n\
         [servers.a]\nurl = \"http://x/\"\nheaders = { A = { file = \"seal\" }, B = \"hunter2\" }\n\
         [servers.b]\ncommand = [\"run\"]\nenv = { KEY = \"hunter2\" }\n",
    )
    .expect("a file");
    let loaded = load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .expect("valid");
    assert_eq!(loaded.config.node.secret, Some(Secret::new(secret)));
    assert_eq!(loaded.config.servers[0].headers[0].1, secret);
    let shown = format!("{loaded:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(secret),
        "{shown}"
    );
}

#[test]
fn bad_secrets_are_not_shown_in_errors() {
    let found = errors(
        "[node]\nsecret = \"hunter2\"\nprevious_secret = 12345\n[redis]\nurl = \"hunter2://x\"\n\
         [telemetry]\notlp_headers = \"hunter2\"\n[servers.a]\nurl = \"http://u:hunter2@x/\"\n",
    );
    assert_eq!(found.len(), 5, "{found:?}");
    for error in found {
        assert!(
            !error.contains("hunter2") && !error.contains("12345"),
            "{error}"
        );
    }
}

#[test]
fn a_redis_section_needs_an_address() {
    let found = errors("[redis]\nprefix = \"x\"\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("configuration:1:1: redis.url: is missing"),
        "{found:?}"
    );
}

#[test]
fn settings_that_differ_from_the_default_are_known() {
    let loaded = with_environment(
        "[node]\ndrain = \"30s\"\nkeep_alive = \"20s\"\n[redis]\nurl = \"redis://h:1\"\n",
        &[],
    )
    .expect("valid");
    let changed: Vec<_> = loaded
        .changed
        .iter()
        .map(|setting| (setting.key.as_str(), setting.value.as_str()))
        .collect();
    assert_eq!(
        changed,
        [("node.keep_alive", "\"20s\""), ("redis.url", "[redacted]")]
    );
}
