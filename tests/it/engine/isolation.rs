//! What a container may do: seen with the engine's own eyes, and from inside.

use serde_json::json;

use super::{Fleet, texts, workload};

#[tokio::test]
async fn every_limit_is_set() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["wait"]);
    spec.isolation.memory = 64 << 20;
    spec.isolation.cpus = 0.5;
    spec.isolation.pids = 16;
    let name = fleet.run("limited", &spec).await;

    let told = fleet.engine.docker(&["inspect", &name]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let (host, config) = (&told[0]["HostConfig"], &told[0]["Config"]);
    let expected = json!({
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 16,
        "ReadonlyRootfs": true,
        "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=67108864"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": false,
        "IpcMode": "private",
        "Init": true,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        "Ulimits": [{"Name": "nofile", "Hard": 16384, "Soft": 16384}],
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&host[key], value, "{key}");
    }
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(
        config["Labels"]["dev.mcp-fleet.transport"],
        "http:9000:/mcp"
    );
    let bindings = &host["PortBindings"];
    assert!(bindings.is_null() || *bindings == json!({}), "{bindings}");
}

#[tokio::test]
async fn a_container_feels_its_limits() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("self", &workload(&["self"])).await;
    let lines = fleet.output_until(&name, "write /tmp/").await;
    let lines = texts(&lines);
    let is = |begin: &str| {
        let line = lines.iter().find(|line| line.starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("no {begin} in {lines:?}"));
        line[begin.len()..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(is("Uid:"), "65532 65532 65532 65532");
    assert_eq!(is("Gid:"), "65532 65532 65532 65532");
    assert_eq!(is("CapEff:"), "0000000000000000");
    assert_eq!(is("CapBnd:"), "0000000000000000");
    assert_eq!(is("NoNewPrivs:"), "1");
    assert_eq!(is("Seccomp:"), "2");
    assert_eq!(is("Max open files"), "16384 16384 files");
    assert_eq!(is("write /written:"), "Read-only file system");
    assert_eq!(is("write /tmp/written:"), "done");
}

#[tokio::test]
async fn processes_are_counted() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["fork", "100"]);
    spec.isolation.pids = 16;
    let name = fleet.run("fork", &spec).await;
    let lines = fleet.output_until(&name, "children").await;
    let last = lines.last().expect("a line").text.clone();
    let children: usize = last["children ".len()..].parse().expect("a number");
    assert!((10..16).contains(&children), "{children}");
}

#[tokio::test]
async fn a_loosened_limit_is_loose() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["self"]);
    spec.isolation.read_only = false;
    spec.isolation.user = "0:0".into();
    spec.isolation.capabilities = vec!["NET_BIND_SERVICE".into()];
    let name = fleet.run("loose", &spec).await;
    let lines = fleet.output_until(&name, "write /tmp/").await;
    let lines = texts(&lines);
    assert!(lines.contains(&"write /written: done"), "{lines:?}");
    assert!(lines.contains(&"CapEff:\t0000000000000400"), "{lines:?}");
}

#[tokio::test]
async fn a_containers_secrets_are_in_no_error() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["wait"]);
    let secret = mcp_fleet::templates::spec::Value {
        value: "hunter2".into(),
        sensitive: true,
    };
    // The engine repeats what it does not like: here a name that is none.
    spec.env.insert(String::new(), secret);
    let error = fleet.create("secret", &spec).await.expect_err("refused");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(error.to_string().contains("***"), "{error}");
}
