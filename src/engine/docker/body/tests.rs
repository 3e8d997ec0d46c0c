use std::collections::BTreeMap;

use super::*;
use crate::{
    engine::{BridgeLaunch, ResolvedImage},
    templates::spec::{Isolation, Value},
};

fn spec(transport: Transport) -> ServerSpec {
    ServerSpec {
        template: "t".into(),
        template_version: None,
        image: "image:1".into(),
        transport,
        entrypoint: None,
        command: None,
        arguments: Vec::new(),
        env: BTreeMap::new(),
        volumes: Vec::new(),
        isolation: Isolation::default(),
        timeout: None,
    }
}

fn stdio() -> ServerSpec {
    spec(Transport::Stdio {
        mode: StdioMode::PerSession,
    })
}

fn image() -> ResolvedImage {
    ResolvedImage {
        id: "sha256:1".into(),
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into()],
        ..ResolvedImage::default()
    }
}

fn bridge() -> BridgeLaunch {
    BridgeLaunch {
        volume: "bridge-volume".into(),
        public_key: "KEY".into(),
        audience: "c".into(),
        port: 8765,
        arguments: Vec::new(),
    }
}

fn made(spec: &ServerSpec, bridge: Option<&BridgeLaunch>) -> ContainerCreateBody {
    let labels = BTreeMap::from([(labels::FLEET.to_owned(), "f".to_owned())]);
    let image = image();
    let new = NewContainer {
        name: "c",
        labels: &labels,
        spec,
        image: &image,
        network: "net",
        bridge,
    };
    body(&new, None).expect("a body")
}

#[test]
fn the_bridge_stands_before_what_the_image_runs() {
    let mut spec = stdio();
    spec.arguments = vec![Value {
        value: "--verbose".into(),
        sensitive: false,
    }];
    let body = made(&spec, Some(&bridge()));
    let entrypoint = body.entrypoint.expect("an entry point").join(" ");
    assert_eq!(
        entrypoint,
        "/.mcp-fleet/mcp-fleet-bridge --port 8765 --public-key KEY --audience c --mode per-session --"
    );
    assert_eq!(
        body.cmd.expect("a command"),
        ["/entry", "serve", "--verbose"]
    );
    let host = body.host_config.expect("a host configuration");
    let mounts = host.mounts.expect("mounts");
    assert_eq!(mounts[0].target.as_deref(), Some("/.mcp-fleet"));
    assert_eq!(mounts[0].read_only, Some(true));
    assert_eq!(host.init, Some(false));
    let labels = body.labels.expect("labels");
    assert_eq!(labels[labels::TRANSPORT], "stdio:8765");
    assert_eq!(labels[labels::FLEET], "f");
}

#[test]
fn the_bridge_is_told_what_is_secret_and_no_secret() {
    let value = |value: &str, sensitive| Value {
        value: value.into(),
        sensitive,
    };
    let mut spec = stdio();
    spec.arguments = vec![value("--key", false), value("s3cr3t-word", true)];
    spec.env = [
        ("MODE", value("fast", false)),
        ("TOKEN", value("s3cr3t-value", true)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let entrypoint = made(&spec, Some(&bridge())).entrypoint.expect("one");
    let told = entrypoint.join(" ");
    assert!(
        told.ends_with("--secret-variables TOKEN --secret-words 3 --"),
        "{told}"
    );
    assert!(!told.contains("s3cr3t"), "{told}");
}

#[test]
fn another_entry_point_drops_the_images_command() {
    let http = || {
        spec(Transport::Http {
            port: 9000,
            path: "/mcp".into(),
        })
    };
    let run = |spec: &ServerSpec| {
        let body = made(spec, None);
        [body.entrypoint, body.cmd].map(|words| words.expect("words").join(" "))
    };
    assert_eq!(run(&http()), ["/entry", "serve"]);
    let mut other = http();
    other.entrypoint = Some(vec!["/other".into()]);
    assert_eq!(run(&other), ["/other", ""]);
    let mut other = http();
    other.command = Some(vec!["other".into()]);
    assert_eq!(run(&other), ["/entry", "other"]);
}

#[test]
fn an_http_server_keeps_its_images_health_check_and_gets_an_init() {
    let http = spec(Transport::Http {
        port: 9000,
        path: "/mcp".into(),
    });
    let body = made(&http, None);
    assert_eq!(body.healthcheck, None);
    assert_eq!(
        body.exposed_ports.as_deref(),
        Some(&["9000/tcp".to_owned()][..])
    );
    assert_eq!(body.host_config.expect("it").init, Some(true));
    assert_eq!(
        body.labels.expect("labels")[labels::TRANSPORT],
        "http:9000:/mcp"
    );
}

#[test]
fn paths_are_bound_and_names_are_volumes() {
    let mut spec = stdio();
    let mount = |source: &str| spec::Mount {
        source: source.into(),
        target: "/data".into(),
        read_only: true,
    };
    spec.volumes = vec![mount("/srv/data"), mount("notes")];
    let host = made(&spec, None).host_config.expect("it");
    let kinds: Vec<_> = host.mounts.expect("mounts").iter().map(|m| m.typ).collect();
    assert_eq!(kinds, [Some(MountType::BIND), Some(MountType::VOLUME)]);
}

#[test]
fn nothing_to_run_is_an_error() {
    let image = ResolvedImage::default();
    let labels = BTreeMap::new();
    let spec = stdio();
    let new = NewContainer {
        name: "c",
        labels: &labels,
        spec: &spec,
        image: &image,
        network: "net",
        bridge: None,
    };
    body(&new, None).expect_err("nothing to run");
}
