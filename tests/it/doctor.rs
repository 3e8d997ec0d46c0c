//! `mcp-fleet doctor`, run on machines with and without trouble.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{
    dockerd::{Dockerd, IMAGE},
    redis::RedisServer,
};

/// Findings and exit code, in an environment of the test's own.
fn doctor(environment: &[(&str, &str)], arguments: &[&str]) -> (Vec<Value>, i32) {
    let done = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"))
        .env_clear()
        .env("MCP_FLEET__NODE__LISTEN", "127.0.0.1:0")
        .envs(environment.iter().copied())
        .args(["doctor", "--output", "json"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = String::from_utf8(done.stdout).expect("text");
    let findings = serde_json::from_str(&text).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&done.stderr);
        panic!("{error}: {text}{said}")
    });
    (findings, done.status.code().expect("an exit code"))
}

fn found<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or_else(|| panic!("no {check} in {findings:?}"))
}

#[test]
fn a_node_that_needs_nothing_finds_nothing_wrong() {
    let (findings, code) = doctor(&[], &[]);
    assert_eq!(code, 0, "{findings:?}");
    assert_eq!(found(&findings, "configuration")["result"], "good");
    assert_eq!(found(&findings, "redis")["result"], "good");
    assert_eq!(found(&findings, "port")["result"], "good");
    assert_ne!(found(&findings, "open files")["result"], "wrong");
}

#[test]
fn a_good_redis_is_told_from_one_that_forgets_and_one_that_is_away() {
    let mut redis = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let environment = [("REDIS_URL", &*url)];
    let (findings, code) = doctor(&environment, &[]);
    assert_eq!(code, 0, "{findings:?}");
    for check in ["redis", "redis memory", "redis latency", "redis clock"] {
        assert_eq!(found(&findings, check)["result"], "good", "{findings:?}");
    }
    redis.cli(&["config", "set", "maxmemory", "100mb"]);
    redis.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    let (findings, code) = doctor(&environment, &[]);
    let memory = found(&findings, "redis memory");
    assert_eq!((&memory["result"], code), (&Value::from("warning"), 0));
    let cure = memory["cure"].as_str().expect("a cure");
    assert!(cure.contains("noeviction"), "{cure}");

    redis.cli(&["config", "set", "requirepass", "hunter2"]);
    let (findings, code) = doctor(&environment, &[]);
    let locked = found(&findings, "redis");
    assert_eq!((&locked["result"], code), (&Value::from("wrong"), 1));
    let cure = locked["cure"].as_str().expect("a cure");
    assert!(cure.contains("redis.password"), "{cure}");

    redis.kill();
    let (findings, code) = doctor(&environment, &[]);
    let away = found(&findings, "redis");
    assert_eq!((&away["result"], code), (&Value::from("wrong"), 1));
    let text = away["found"].as_str().expect("text");
    assert!(text.ends_with("Connection refused"), "{text}");
}

#[test]
fn a_hung_redis_is_not_waited_for_long() {
    let redis = RedisServer::start();
    redis.pause();
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let before = std::time::Instant::now();
    let (findings, code) = doctor(&[("REDIS_URL", &url)], &[]);
    assert_eq!(code, 1);
    assert_eq!(found(&findings, "redis")["result"], "wrong");
    assert!(before.elapsed() < std::time::Duration::from_secs(20));
    redis.resume();
}

#[test]
fn a_taken_port_is_named() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address").to_string();
    let (findings, code) = doctor(&[("MCP_FLEET__NODE__LISTEN", &address)], &[]);
    let port = found(&findings, "port");
    assert_eq!((&port["result"], code), (&Value::from("wrong"), 1));
    let cure = port["cure"].as_str().expect("a cure");
    assert!(cure.contains("node.listen"), "{cure}");
}

#[test]
fn every_error_of_the_configuration_is_a_finding() {
    let environment = [
        ("MCP_FLEET__ENGINE__DOCKER__REACH", "pubish"),
        ("MCP_FLEET__ENGINE__DOCKER__HOTS", "x"),
    ];
    let (findings, code) = doctor(&environment, &[]);
    assert_eq!((findings.len(), code), (2, 1), "{findings:?}");
}

#[test]
fn an_engine_is_looked_at_with_the_bridge_and_what_nobody_wants() {
    let Some(engine) = Dockerd::shared() else {
        return;
    };
    let bridge = engine.bridge().display().to_string();
    let host = engine.host();
    let environment = [
        ("MCP_FLEET__ENGINE__DOCKER__HOST", &*host),
        ("MCP_FLEET__ENGINE__DOCKER__BRIDGE", &*bridge),
    ];
    let (findings, code) = doctor(&environment, &[]);
    assert_eq!(code, 0, "{findings:?}");
    for check in ["engine", "engine limits", "engine clock", "bridge"] {
        assert_eq!(found(&findings, check)["result"], "good", "{findings:?}");
    }
    let dynamic = env!("CARGO_BIN_EXE_mcp-fleet");
    let (findings, code) = doctor(
        &[
            environment[0],
            ("MCP_FLEET__ENGINE__DOCKER__BRIDGE", dynamic),
        ],
        &[],
    );
    assert_eq!(found(&findings, "bridge")["result"], "wrong");
    assert_eq!(code, 1);

    // A node that wants one of two containers of a fleet.
    let fleet = format!("{:08x}", rand::random::<u32>());
    let name = |of: &str| format!("mcp-fleet-{fleet}-{of}-0");
    for of in ["wanted", "left"] {
        let labels = [
            format!("dev.mcp-fleet.fleet={fleet}"),
            format!("dev.mcp-fleet.server={of}"),
        ];
        let labels = ["--label", &labels[0], "--label", &labels[1]];
        let create = ["create", "--network", "none", "--name", &name(of)];
        engine.docker(&[&create[..], &labels, &[IMAGE]].concat());
    }
    let node = node(&format!(r#"[{{"replicas":["{}"]}}]"#, name("wanted")));
    let (findings, _) = doctor(&environment, &["--node", &node]);
    let left = found(&findings, "containers");
    assert_eq!(left["result"], "warning");
    assert_eq!(
        left["found"],
        format!("no deployment wants {}", name("left"))
    );
    for of in ["wanted", "left"] {
        engine.docker(&["rm", &name(of)]);
    }
}

#[test]
fn an_engine_that_is_configured_and_away_is_wrong() {
    let away = [(
        "MCP_FLEET__ENGINE__DOCKER__HOST",
        "unix:///nowhere/docker.sock",
    )];
    let (findings, code) = doctor(&away, &[]);
    assert_eq!(found(&findings, "engine")["result"], "wrong");
    assert_eq!(code, 1);
}

/// Answers every request with this; ends with the process of the tests.
fn node(body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The whole of it is not needed to know the answer.
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    format!("http://{address}")
}
