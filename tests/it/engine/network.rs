//! Who can reach whom.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

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

/// A machine beside the engine's, that knows no way to containers.
struct Outside {
    child: Child,
    address: String,
    /// The engine's machine, as it sees it.
    near: String,
}

impl Outside {
    fn start(fleet: &Fleet) -> Self {
        let script = "import socket, sys\n\
                      print('there', flush=True)\n\
                      host = sys.stdin.readline().strip()\n\
                      s = socket.create_server((host, 80))\n\
                      print('listening', flush=True)\n\
                      while True: s.accept()";
        let mut child = fleet
            .engine
            .on_its_machine("unshare")
            .args(["--net", "python3", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux and python3 are installed");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut hear = || said.next().expect("a line").expect("text");
        assert_eq!(hear(), "there");
        let (id, number) = (child.id().to_string(), rand::random::<u8>());
        let (near, far) = (format!("198.18.{number}.1"), format!("198.18.{number}.2"));
        let link = format!("outside{number}");
        let near_ip = || fleet.engine.on_its_machine("ip");
        let far_ip = || {
            let mut command = Command::new("nsenter");
            command.args(["--net", "--target", &id, "ip"]);
            command
        };
        let pair = ["type", "veth", "peer", "name", "inside", "netns", &id];
        run(near_ip().args(["link", "add", &link]).args(pair));
        run(near_ip().args(["addr", "add", &format!("{near}/30"), "dev", &link]));
        run(near_ip().args(["link", "set", &link, "up"]));
        run(far_ip().args(["addr", "add", &format!("{far}/30"), "dev", "inside"]));
        run(far_ip().args(["link", "set", "inside", "up"]));
        let mut input = child.stdin.take().expect("a pipe");
        writeln!(input, "{far}").expect("it listens");
        assert_eq!(hear(), "listening");
        Self {
            child,
            address: format!("{far}:80"),
            near,
        }
    }

    /// From now on it could answer containers, if they could ask.
    fn learn_the_way_back(&self) {
        let id = self.child.id().to_string();
        let mut ip = Command::new("nsenter");
        ip.args(["--net", "--target", &id, "ip"]);
        run(ip.args(["route", "add", "default", "via", &self.near]));
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(command: &mut Command) {
    let done = command.status().expect("iproute2 is installed");
    assert!(done.success(), "{command:?}");
}

#[tokio::test]
async fn nodes_reach_containers_that_reach_nobody() {
    let Some(fleet) = Fleet::new() else { return };
    let server = fleet.run("server", &workload(&["listen", "9000"])).await;
    fleet.output_until(&server, "listening").await;
    let address = fleet.inspect(&server).await.address.expect("an address");
    assert!(is_reached(&fleet, address), "{address}");

    let (neighbour, outside) = (address.to_string(), Outside::start(&fleet));
    outside.learn_the_way_back();
    let spec = workload(&["connect", &neighbour, &outside.address]);
    let client = fleet.run("client", &spec).await;
    let lines = fleet.output_until(&client, "tried").await;
    let expected = [
        &*format!("{neighbour}: no answer"),
        &*format!("{}: no answer", outside.address),
        "tried",
    ];
    assert_eq!(texts(&lines), expected);
}

#[tokio::test]
async fn a_server_that_may_reach_the_outside_still_reaches_no_neighbour() {
    let Some(fleet) = Fleet::new() else { return };
    let server = fleet.run("server", &egress(&["listen", "9000"])).await;
    fleet.output_until(&server, "listening").await;
    let address = fleet.inspect(&server).await.address.expect("an address");
    assert!(is_reached(&fleet, address), "{address}");
    let (neighbour, outside) = (address.to_string(), Outside::start(&fleet));
    let spec = egress(&["connect", &neighbour, &outside.address]);
    let client = fleet.run("client", &spec).await;
    let lines = fleet.output_until(&client, "tried").await;
    let expected = [
        &*format!("{neighbour}: no answer"),
        &*format!("{}: connected", outside.address),
        "tried",
    ];
    assert_eq!(texts(&lines), expected);
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
    // Its network leads out, but no answer finds the way back in.
    let outside = Outside::start(&fleet);
    let client = fleet
        .run("client", &workload(&["connect", &outside.address]))
        .await;
    let lines = fleet.output_until(&client, "tried").await;
    let expected = format!("{}: no answer", outside.address);
    assert_eq!(texts(&lines), [&*expected, "tried"]);
}
