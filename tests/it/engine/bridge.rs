//! The bridge gets into images that have no shell, and only once.

use std::time::Duration;

use mcp_fleet::{
    engine::{BridgeLaunch, Cause, Created, NewContainer, Settings, docker::Docker},
    templates::spec::{ServerSpec, StdioMode, Transport},
};

use super::{Fleet, texts, workload};

fn stdio(arguments: &[&str]) -> ServerSpec {
    ServerSpec {
        transport: Transport::Stdio {
            mode: StdioMode::Shared,
        },
        ..workload(arguments)
    }
}

async fn create_bridged(fleet: &Fleet, of: &str, volume: String) -> String {
    let name = fleet.name(of);
    let image = fleet.image().await;
    let spec = stdio(&["self"]);
    let network = fleet
        .docker
        .ensure_network(&fleet.id, spec.isolation.network)
        .await;
    let bridge = BridgeLaunch {
        volume,
        public_key: "a2V5".into(),
        audience: name.clone(),
        port: 8765,
        arguments: vec!["--idle-exit".into(), "1h".into()],
    };
    let new = NewContainer {
        name: &name,
        labels: &fleet.labels(of),
        spec: &spec,
        image: &image,
        network: &network.expect("a network"),
        bridge: Some(&bridge),
    };
    assert_eq!(fleet.docker.create(&new).await, Ok(Created::Created));
    name
}

async fn run_bridged(fleet: &Fleet, of: &str, volume: String) -> String {
    let name = create_bridged(fleet, of, volume).await;
    fleet.docker.start(&name).await.expect("started");
    name
}

#[tokio::test]
async fn a_container_that_cannot_start_is_not_left_behind() {
    let Some(fleet) = Fleet::new() else { return };
    let empty = format!("empty-{}", fleet.id);
    let name = create_bridged(&fleet, "empty", empty.clone()).await;
    let error = fleet.docker.start(&name).await.expect_err("no bridge");
    assert!(matches!(error.cause, Cause::NotRunnable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&name) && text.contains("/.mcp-fleet/"),
        "{text}"
    );
    assert!(!error.is_transient());
    assert_eq!(fleet.docker.inspect(&name).await, Ok(None));
    fleet.engine.docker(&["volume", "rm", &empty]);
}

#[tokio::test]
async fn the_bridge_is_brought_once_and_runs_first_with_a_read_only_root() {
    let Some(fleet) = Fleet::new() else { return };
    let image = fleet.image().await;
    // Two nodes at the same time, each without any memory.
    let second = Docker::connect(fleet.engine.settings()).expect("good settings");
    let (one, other) = tokio::join!(
        fleet.docker.ensure_bridge(&fleet.id, &image),
        second.ensure_bridge(&fleet.id, &image)
    );
    let volume = one.expect("filled");
    assert_eq!(other.expect("filled"), volume);
    assert!(volume.starts_with(&format!("mcp-fleet-{}-bridge-", fleet.id)));
    let name = run_bridged(&fleet, "bridged", volume.clone()).await;
    let lines = fleet.output_until(&name, "write /tmp/").await;
    let lines = texts(&lines);
    let said: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("bridge: "))
        .collect();
    let expected =
        format!("--port 8765 --public-key a2V5 --audience {name} --mode shared --idle-exit 1h --");
    assert_eq!(said.join(" "), expected);
    assert!(
        lines.contains(&"write /written: Read-only file system"),
        "{lines:?}"
    );
    let mounts = fleet
        .engine
        .docker(&["inspect", "--format", "{{json .Mounts}}", &name]);
    assert!(mounts.contains("\"RW\":false"), "{mounts}");

    // In use, it stays; then it goes with everything else.
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
    assert!(fleet.left().contains(&volume), "{:?}", fleet.left());
    fleet.docker.remove(&name).await.expect("removed");
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
    assert_eq!(fleet.left(), Vec::<String>::new());
    // And comes back, although this node had brought it before.
    fleet
        .docker
        .ensure_bridge(&fleet.id, &image)
        .await
        .expect("again");
    assert_eq!(fleet.left(), [volume]);
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
}

#[tokio::test]
async fn half_a_bridge_and_a_dead_helper_are_replaced() {
    let Some(fleet) = Fleet::new() else { return };
    let image = fleet.image().await;
    let volume = fleet
        .docker
        .ensure_bridge(&fleet.id, &image)
        .await
        .expect("filled");
    let name = run_bridged(&fleet, "first", volume.clone()).await;
    fleet.output_until(&name, "write /tmp/").await;
    fleet.docker.remove(&name).await.expect("removed");
    // What a node leaves that was killed while it filled the volume.
    let mountpoint =
        fleet
            .engine
            .docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]);
    std::fs::write(format!("{mountpoint}/mcp-fleet-bridge"), b"\x7fELF").expect("written");
    let helper = format!("{volume}-fill");
    fleet
        .engine
        .docker(&["create", "--name", &helper, "--network", "none", &image.id]);

    let fresh = Docker::connect(fleet.engine.settings()).expect("good settings");
    let again = fresh.ensure_bridge(&fleet.id, &image);
    let again = tokio::time::timeout(Duration::from_secs(60), again).await;
    assert_eq!(again.expect("in time"), Ok(volume.clone()));
    let name = run_bridged(&fleet, "second", volume).await;
    fleet.output_until(&name, "write /tmp/").await;
    fleet.docker.remove(&name).await.expect("removed");
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
    assert_eq!(fleet.left(), Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_or_dynamic_bridge_is_an_error_with_a_cure() {
    let Some(fleet) = Fleet::new() else { return };
    let image = fleet.image().await;
    for (path, problem) in [
        ("/nowhere/mcp-fleet-bridge", "is not there"),
        (env!("CARGO_BIN_EXE_mcp-fleet"), "is not linked statically"),
    ] {
        let settings = Settings {
            bridge: Some(path.into()),
            ..fleet.engine.settings()
        };
        let other = Fleet::with(std::sync::Arc::clone(&fleet.engine), settings);
        let error = other.docker.ensure_bridge(&other.id, &image).await;
        let error = error.expect_err("unfit");
        assert!(matches!(error.cause, Cause::Bridge { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path) && text.contains(problem), "{text}");
        assert!(text.contains("cargo bridge"), "{text}");
        assert_eq!(other.left(), Vec::<String>::new());
    }
}
