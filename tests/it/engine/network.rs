//! Who can reach whom.

use std::net::SocketAddr;

use mcp_fleet::engine::Reach;

use super::{Fleet, egress, texts, workload};

/// Whether a process on the engine's machine, where nodes run, reaches it.
fn is_reached(fleet: &Fleet, address: SocketAddr) -> bool {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let script = "import socket, sys; \
                  s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); \
                  sys.exit(s.recv(6) != b'hello\\n')";
    let mut command = fleet.engine.on_its_machine("python3");
    let asked = command.args(["-c", script, &host, &port]).output();
    asked.expect("python3 is installed").status.success()
}

/// Gives the engine's machine an address that is reached through its routes,
/// and listens there.
fn outside(fleet: &Fleet) -> (std::process::Child, String) {
    let script = "import socket, time\n\
                  s = socket.create_server(('192.0.2.1', 80))\n\
                  print('listening', flush=True)\n\
                  while True: s.accept()";
    let add = ["link", "add", "outside", "type", "dummy"];
    fleet
        .engine
        .on_its_machine("ip")
        .args(add)
        .output()
        .expect("ip");
    for arguments in [
        &["addr", "add", "192.0.2.1/24", "dev", "outside"][..],
        &["link", "set", "outside", "up"],
    ] {
        fleet
            .engine
            .on_its_machine("ip")
            .args(arguments)
            .output()
            .expect("ip");
    }
    let mut child = fleet
        .engine
        .on_its_machine("python3")
        .args(["-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
    assert_eq!(line, "listening\n");
    (child, "192.0.2.1:80".to_owned())
}

#[tokio::test]
async fn nodes_reach_containers_that_reach_nobody() {
    let Some(fleet) = Fleet::new() else { return };
    let server = fleet.run("server", &workload(&["listen", "9000"])).await;
    fleet.output_until(&server, "listening").await;
    let address = fleet.inspect(&server).await.address.expect("an address");
    assert!(is_reached(&fleet, address), "{address}");

    let neighbour = address.to_string();
    let spec = workload(&["connect", &neighbour, "192.0.2.1:80", "198.51.100.1:80"]);
    let client = fleet.run("client", &spec).await;
    let lines = fleet.output_until(&client, "tried").await;
    let lines = texts(&lines);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("connected")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_server_that_may_reach_the_outside_still_reaches_no_neighbour() {
    let Some(fleet) = Fleet::new() else { return };
    let server = fleet.run("server", &egress(&["listen", "9000"])).await;
    fleet.output_until(&server, "listening").await;
    let address = fleet.inspect(&server).await.address.expect("an address");
    assert!(is_reached(&fleet, address), "{address}");
    let (mut outside, target) = outside(&fleet);
    let neighbour = address.to_string();
    let client = fleet
        .run("client", &egress(&["connect", &neighbour, &target]))
        .await;
    let lines = fleet.output_until(&client, "tried").await;
    outside.kill().expect("it runs");
    outside.wait().expect("it ended");
    assert_eq!(
        texts(&lines),
        [
            &*format!("{neighbour}: no answer"),
            &*format!("{target}: connected"),
            "tried"
        ]
    );
}

#[tokio::test]
async fn published_ports_are_free_ones_and_read_back() {
    let Some(fleet) = Fleet::new() else { return };
    let settings = mcp_fleet::engine::Settings {
        reach: Reach::Publish,
        ..fleet.engine.settings()
    };
    let fleet = Fleet::with(std::sync::Arc::clone(&fleet.engine), settings);
    let mut addresses = Vec::new();
    for of in ["one", "two"] {
        let server = fleet.run(of, &workload(&["listen", "9000"])).await;
        fleet.output_until(&server, "listening").await;
        let address = fleet.inspect(&server).await.address.expect("an address");
        assert!(address.ip().is_loopback() && address.port() != 9000);
        assert!(is_reached(&fleet, address), "{address}");
        addresses.push(address);
    }
    assert_ne!(addresses[0], addresses[1]);
    // It needs a network that leads out, but no answer finds the way back in.
    let spec = workload(&["connect", "198.51.100.1:80"]);
    let client = fleet.run("client", &spec).await;
    let lines = fleet.output_until(&client, "tried").await;
    assert!(!texts(&lines)[0].contains("connected"), "{lines:?}");
}
