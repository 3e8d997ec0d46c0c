//! A real bridge in front of a real process, and nodes that speak to it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use mcp_fleet::bridge::token::{SCHEME, SigningKey};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    client::{CAPABILITIES, MODERN, VERSION},
    eventually,
    wire::{self, Answered, Reply},
};

pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const AUDIENCE: &str = "bridge-under-test";
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/support/scripted_stdio.py"
);

/// How a bridge is started.
pub(crate) struct Setup {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    command: Vec<String>,
    public_key: String,
}

impl Setup {
    /// In front of the scripted server of that era.
    pub(crate) fn scripted(era: &str) -> Self {
        Self::command(&["python3", SCRIPT, era])
    }

    pub(crate) fn command(command: &[&str]) -> Self {
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            command: command.iter().map(ToString::to_string).collect(),
            public_key: SigningKey::derive(&SECRET).public().to_string(),
        }
    }

    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Lets nodes in whose tokens that key checks.
    pub(crate) fn letting_in(mut self, public_key: &str) -> Self {
        public_key.clone_into(&mut self.public_key);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn start(self) -> Bridge {
        let mut bridge = self.spawn();
        let found = Mutex::new(None);
        eventually("the bridge listens", async || {
            let lines = bridge.lines();
            let address = lines.iter().find_map(|line| {
                let (_, rest) = line.split_once("address=")?;
                rest.split(' ').next()?.parse().ok()
            });
            *found.lock().expect("no panic") = address;
            assert!(
                address.is_some() || !bridge.has_ended(),
                "it ended: {lines:?}"
            );
            address.is_some()
        })
        .await;
        bridge.address = found.into_inner().expect("no panic").expect("found");
        bridge
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(self) -> Bridge {
        let key = SigningKey::derive(&SECRET);
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-fleet-bridge"))
            .args(["--address", "127.0.0.1", "--port", "0"])
            .args(["--public-key", &self.public_key])
            .args(["--audience", AUDIENCE])
            .args(&self.arguments)
            .arg("--")
            .args(&self.command)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
        Bridge {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child: Mutex::new(child),
            log,
            key,
        }
    }
}

/// A running bridge, killed when dropped.
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    child: Mutex<Child>,
    log: Arc<Mutex<Vec<String>>>,
    key: SigningKey,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("no panic");
        child.kill().ok();
        child.wait().ok();
    }
}

impl Bridge {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.lock().expect("no panic").id()).expect("a pid")
    }

    /// What it and its server wrote to stderr.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().expect("no panic");
        child.try_wait().expect("a child").is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it runs");
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> ExitStatus {
        eventually("the bridge ends", async || self.has_ended()).await;
        let mut child = self.child.lock().expect("no panic");
        child.wait().expect("a child")
    }

    /// A node of the fleet.
    pub(crate) fn node(&self, name: &str) -> Caller {
        Caller {
            address: self.address,
            authorization: self.authorization(name, AUDIENCE, Duration::from_secs(60)),
            session: None,
        }
    }

    pub(crate) fn authorization(&self, node: &str, audience: &str, valid: Duration) -> String {
        let token = self.key.sign(node, audience, SystemTime::now() + valid);
        format!("{SCHEME} {token}")
    }

    /// A node with a session of its own.
    pub(crate) async fn session(&self, name: &str, capabilities: Value) -> Caller {
        let mut caller = self.node(name);
        let opened = caller.initialize(capabilities).await;
        assert_eq!(
            opened.result()["protocolVersion"],
            "2025-11-25",
            "{}",
            opened.text
        );
        let id = opened.header("mcp-session-id").expect("a session");
        caller.session = Some(id.to_owned());
        caller
    }
}

/// A node of the fleet, perhaps with a session.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) authorization: String,
    pub(crate) session: Option<String>,
}

impl Caller {
    pub(crate) fn request(&self, method: Method, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri("/mcp")
            .header("host", "bridge")
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        request.body(Full::new(body.into())).expect("a request")
    }

    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Reply {
        wire::send(self.address, self.request(Method::POST, body)).await
    }

    pub(crate) async fn open(&self, message: &Value) -> Reply {
        self.post(message.to_string()).await
    }

    pub(crate) async fn send(&self, message: &Value) -> Answered {
        self.open(message).await.answered().await
    }

    pub(crate) async fn listen(&self) -> Reply {
        wire::send(self.address, self.request(Method::GET, "")).await
    }

    pub(crate) async fn close(&self) -> u16 {
        let request = self.request(Method::DELETE, "");
        wire::send(self.address, request).await.status
    }

    pub(crate) async fn initialize(&self, capabilities: Value) -> Answered {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "a-client", "version": "1"},
        });
        self.send(&request(0, "initialize", params)).await
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answered {
        self.send(&tool_call(next_id(), tool, arguments)).await
    }

    /// The text a tool answers with.
    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> String {
        let answered = self.call(tool, arguments).await;
        let text = answered.result()["content"][0]["text"].as_str();
        text.expect("a text").to_owned()
    }

    /// Calls a tool in the modern era.
    pub(crate) async fn modern(&self, tool: &str, arguments: Value) -> Answered {
        self.send(&modern(
            next_id(),
            "tools/call",
            json!({"name": tool, "arguments": arguments}),
        ))
        .await
    }

    /// What the server's process says of itself.
    pub(crate) async fn process(&self) -> Value {
        self.call("pid", json!({})).await.result().clone()
    }

    pub(crate) async fn pid(&self) -> i32 {
        let pid = self.process().await["pid"].as_i64().expect("a number");
        i32::try_from(pid).expect("a pid")
    }

    /// The methods the server's process has seen.
    pub(crate) async fn seen(&self) -> Vec<String> {
        let process = self.process().await;
        let seen = process["seen"].as_array().expect("a list");
        seen.iter()
            .map(|message| message["method"].as_str().expect("a method").to_owned())
            .collect()
    }
}

/// Ids that tests do not choose.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(10_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

pub(crate) fn tool_call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    request(
        id,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
}

pub(crate) fn modern(id: impl Into<Value>, method: &str, mut params: Value) -> Value {
    params["_meta"][VERSION] = json!(MODERN);
    params["_meta"][CAPABILITIES] = json!({});
    request(id, method, params)
}
