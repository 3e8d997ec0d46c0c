//! The real program: what it prints and its exit codes.
//!
//! The node it talks to here is a fake one with canned answers; what a real one
//! answers is tested with the REST routes.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// The program without whatever the environment of the tests says.
fn fleet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    finished(fleet().args(args).output().expect("the program runs"))
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code");
    (code, text(output.stdout), text(output.stderr))
}

/// What was asked: path and body.
type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Answers every request whose path it knows; remembers all.
struct FakeNode {
    address: SocketAddr,
    seen: Seen,
}

impl FakeNode {
    fn start(answers: &[(&'static str, u16, &'static str)]) -> Self {
        let answers: HashMap<_, _> = answers
            .iter()
            .map(|(path, status, body)| (*path, (*status, *body)))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Seen::default();
        let remembered = Arc::clone(&seen);
        // Ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &answers, &remembered);
            }
        });
        Self { address, seen }
    }

    /// The first body sent to a path, once it has been.
    fn body(&self, path: &str) -> Vec<u8> {
        for _ in 0..500 {
            let seen = self.seen.lock().expect("not poisoned");
            if let Some((_, body)) = seen.iter().find(|(seen, _)| seen == path) {
                return body.clone();
            }
            drop(seen);
            thread::sleep(Duration::from_millis(20));
        }
        panic!("nothing was sent to {path}");
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let url = format!("http://{}", self.address);
        let output = fleet().args(args).env("MCP_FLEET_URL", url).output();
        finished(output.expect("the program runs"))
    }
}

fn answer(mut stream: TcpStream, answers: &HashMap<&str, (u16, &str)>, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
    let mut request = String::new();
    reader.read_line(&mut request).expect("a request line");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let path = request.split(' ').nth(1).expect("a path");
    let seen_now = (path.to_owned(), body);
    seen.lock().expect("not poisoned").push(seen_now);
    let (status, body) = answers
        .get(path)
        .copied()
        .unwrap_or((404, r#"{"error":{"message":"unknown server"}}"#));
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .expect("an answer");
}

#[test]
fn check_explains_every_error_and_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fleet.toml");
    std::fs::write(
        &file,
        "[node]\nlisten = \"x\"\ndrian = \"1s\"\n[server.a]\n",
    )
    .expect("a file");
    let path = file.to_str().expect("UTF-8");
    let (code, out, err) = run(&["check", "--config", path]);
    assert_eq!((code, out.as_str()), (1, ""));
    for expected in [
        format!("{path}:2:10: node.listen: expected an address and a port"),
        format!("{path}:3:1: node.drian: unknown key; did you mean `node.drain`?"),
        format!("{path}:4:2: server: unknown key; did you mean `servers`?"),
        "3 findings".to_owned(),
    ] {
        assert!(err.contains(&expected), "{expected} is not in\n{err}");
    }
}

#[test]
fn check_says_what_a_good_configuration_means() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fleet.yaml");
    let text =
        "redis:\n  url: redis://:hunter2@h:1\nservers:\n  a:\n    url: http://a.example/mcp\n";
    std::fs::write(&file, text).expect("a file");
    let output = fleet()
        .args(["check", "--config", file.to_str().expect("UTF-8")])
        .env("MCP_FLEET__LIMITS__BATCH", "7")
        .output();
    let (code, out, err) = finished(output.expect("the program runs"));
    assert_eq!((code, err.as_str()), (0, ""));
    for expected in [
        "is valid",
        "a     http://a.example/mcp  config",
        "demo  built-in",
        "limits.batch",
        "(environment variable MCP_FLEET__LIMITS__BATCH)",
        "[redacted]",
    ] {
        assert!(out.contains(expected), "{expected} is not in\n{out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn check_without_a_file_reads_the_environment() {
    let output = fleet().arg("check").env("REDIS_URL", "nonsense").output();
    let (code, _, err) = finished(output.expect("the program runs"));
    assert_eq!(code, 1);
    assert!(
        err.contains("environment variable REDIS_URL: redis.url: expected"),
        "{err}"
    );
}

#[test]
fn a_bad_configuration_stops_the_node_before_it_binds() {
    let (code, out, err) = run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains("error: --listen: node.listen: 0.0.0.0:0"),
        "{err}"
    );
    assert!(err.contains("mode = \"none\""), "{err}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for args in [
        &["bogus"][..],
        &["call", "demo"],
        &["call", "demo", "tool", "[1]"],
        &["call", "demo", "tool", "{"],
        &["tools", "no such name"],
        &["status", "--node", "nowhere"],
        &["status", "--output", "xml"],
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("error: "), "{args:?}: {err}");
    }
}

#[test]
fn an_absent_node_is_answered_with_how_to_start_one() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let (code, out, err) = run(&["servers", "--node", &url]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.contains(&url) && err.contains("`mcp-fleet serve`"),
        "{err}"
    );
}

#[test]
fn what_a_node_tells_is_shown_in_three_shapes() {
    let node = FakeNode::start(&[
        (
            "/api/cluster",
            200,
            r#"{"nodes":[{"id":"node-1","listen":"127.0.0.1:1","self":true}],"store":{"kind":"redis","reachable":true}}"#,
        ),
        (
            "/api/servers",
            200,
            r#"[{"name":"demo","origin":"built-in","replicas":[{"endpoint":"built-in","in_flight":0}]}]"#,
        ),
        (
            "/mcp/*/tools/list",
            200,
            r#"[{"name":"demo__say_hello","description":"Greets.","z":12345678901234567890}]"#,
        ),
    ]);
    let (code, out, _) = node.run(&["status"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("store redis (reachable)") && out.contains("node-1"),
        "{out}"
    );
    let (_, out, _) = node.run(&["servers"]);
    assert!(out.contains("demo    built-in"), "{out}");
    let (_, out, _) = node.run(&["tools", "*"]);
    assert!(out.contains("demo__say_hello  Greets."), "{out}");
    let (_, out, _) = node.run(&["tools", "*", "--output", "json"]);
    assert!(
        out.contains("\n    \"name\": \"demo__say_hello\",\n"),
        "{out}"
    );
    assert!(out.contains("\"z\": 12345678901234567890\n"), "{out}");
    let (_, out, _) = node.run(&["tools", "*", "-o", "yaml"]);
    assert!(out.starts_with("- name: demo__say_hello\n"), "{out}");
}

#[test]
fn a_call_sends_its_arguments_as_written_and_prints_the_text() {
    let node = FakeNode::start(&[
        (
            "/mcp/demo/tools/call",
            200,
            r#"{"content":[{"type":"text","text":"Hello, Ada!"}]}"#,
        ),
        (
            "/mcp/bad/tools/call",
            200,
            r#"{"content":[{"type":"text","text":"no such city"}],"isError":true}"#,
        ),
        (
            "/mcp/down/tools/call",
            502,
            r#"{"error":{"message":"cannot reach down"}}"#,
        ),
    ]);
    let arguments = r#"{"name": "Ada", "n": 1.0e2}"#;
    let (code, out, err) = node.run(&["call", "demo", "say_hello", arguments]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "Hello, Ada!\n", ""));
    let body = String::from_utf8(node.body("/mcp/demo/tools/call")).expect("UTF-8");
    assert_eq!(
        body,
        format!(r#"{{"name":"say_hello","arguments":{arguments}}}"#)
    );

    let (code, out, _) = node.run(&["call", "bad", "weather"]);
    assert_eq!((code, out.as_str()), (1, "no such city\n"));
    let (code, _, err) = node.run(&["call", "down", "x"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "error: cannot reach down [502]\n")
    );
    let (code, _, err) = node.run(&["call", "absent", "x"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("unknown server [404] (`mcp-fleet servers`"),
        "{err}"
    );
}

#[test]
fn a_call_reads_its_arguments_from_standard_input() {
    let node = FakeNode::start(&[("/mcp/demo/tools/call", 200, r#"{"content":[]}"#)]);
    let mut child = fleet()
        .args(["call", "demo", "t", "-"])
        .env("MCP_FLEET_URL", format!("http://{}", node.address))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"{\"a\":\n1}\n").expect("written");
    drop(stdin);
    assert!(child.wait().expect("an end").success());
    let body = String::from_utf8(node.body("/mcp/demo/tools/call")).expect("UTF-8");
    assert_eq!(body, "{\"name\":\"t\",\"arguments\":{\"a\":\n1}}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(
            out.contains("mcp-fleet") && out.contains("mcp-json"),
            "{shell}"
        );
    }
}

/// A node on a free port, after its first screen.
struct Served {
    child: Child,
    screen: String,
}

impl Served {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut child = fleet()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--server", "w=http://127.0.0.1:1/mcp"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program runs");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut screen = String::new();
        for line in stdout.lines() {
            let line = line.expect("UTF-8");
            screen.push_str(&line);
            screen.push('\n');
            if line.contains("mcpServers") {
                break;
            }
        }
        Self { child, screen }
    }

    /// Asks it to end; its exit code, within a time nobody would call hanging.
    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status();
        assert!(told.expect("kill runs").success());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the node did not end");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_first_screen_of_serve_goes_to_standard_output() {
    let served = Served::start(&[]);
    let screen = &served.screen;
    assert!(screen.contains("listens on http://127.0.0.1:"), "{screen}");
    assert!(!screen.contains(":0 "), "{screen}");
    for expected in [
        "w     http://127.0.0.1:1/mcp",
        "demo say_hello '{\"name\":\"Ada\"}'",
        "curl -s ",
    ] {
        assert!(screen.contains(expected), "{expected} is not in\n{screen}");
    }
    assert_eq!(served.stop(), Some(0));
}

#[test]
fn a_node_pushes_to_a_collector() {
    let collector = FakeNode::start(&[("/v1/metrics", 200, ""), ("/v1/traces", 200, "")]);
    let endpoint = format!("http://{}", collector.address);
    let served = Served::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_SERVICE_NAME", "fleet-under-test"),
        ("MCP_FLEET__TELEMETRY__METRICS_INTERVAL", "1s"),
    ]);
    let body = collector.body("/v1/metrics");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("fleet-under-test") && text.contains("mcp_fleet.in_use"));
    assert_eq!(served.stop(), Some(0));
}

#[test]
fn a_dead_collector_neither_blocks_nor_fails_a_node() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let served = Served::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("MCP_FLEET__TELEMETRY__METRICS_INTERVAL", "1s"),
    ]);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(served.stop(), Some(0));
}

#[test]
fn templates_are_imported_once_and_without_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mcp.json");
    std::fs::write(
        &file,
        r#"{"mcpServers": {
            "time": {"command": "docker", "args": ["run", "-i", "-e", "API_TOKEN", "mcp/time"], "env": {"API_TOKEN": "hunter2"}},
            "other": {"command": "npx", "args": ["other"]}}}"#,
    )
    .expect("a file");
    let templates = directory.path().join("templates");
    let paths = [&file, &templates].map(|path| path.to_str().expect("UTF-8"));
    let args = ["templates", "import", paths[0], "--directory", paths[1]];
    let (code, out, err) = run(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("left out: other: runs a program"), "{out}");
    let written = std::fs::read_to_string(templates.join("time/template.json")).expect("a file");
    assert!(
        written.contains("mcp/time") && !written.contains("hunter2"),
        "{written}"
    );
    let (code, _, err) = run(&args);
    assert!(code == 1 && err.contains("--force"), "{err}");
    let (code, ..) = run(&[&args[..], &["--force"]].concat());
    assert_eq!(code, 0);
}

#[test]
fn an_unknown_template_is_told_in_the_nodes_words() {
    let node = FakeNode::start(&[(
        "/api/templates/tiem?tools=true",
        404,
        r#"{"error":{"code":"unknown_template","message":"there is no template \"tiem\"; did you mean \"time\"?"}}"#,
    )]);
    let (code, out, err) = node.run(&["template", "tiem"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "error: there is no template \"tiem\"; did you mean \"time\"? [404]\n"
    );
}
