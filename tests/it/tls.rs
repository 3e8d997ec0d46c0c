//! TLS toward clients and toward servers.

use std::{path::Path, sync::Arc};

use mcp_fleet::{certificates, config::Tls, http::tls::Identity};
use rustls::pki_types::ServerName;
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use crate::support::{client::call, node::Setup, redis::Certificate};

fn certificate() -> (TempDir, Certificate) {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = Certificate::make(directory.path());
    (directory, certificate)
}

/// A node with the demo server that speaks TLS only.
fn speaking_tls(certificate: &Certificate) -> Setup {
    let files = format!(
        "{{ certificate = {:?}, key = {:?} }}",
        certificate.file, certificate.key
    );
    Setup::new()
        .set("node.tls", &files)
        .set("node.demo", "true")
}

#[tokio::test]
async fn a_node_reaches_another_over_tls_when_it_trusts_it() {
    let (_directory, certificate) = certificate();
    let behind = speaking_tls(&certificate).start().await;
    let url = format!("https://localhost:{}/mcp/demo", behind.address.port());
    let trusting = Setup::new()
        .server("behind", &url)
        .set("upstream.ca_file", &format!("{:?}", certificate.file));
    let node = trusting.start().await;
    let say_hello = call("say_hello", json!({"name": "Ada"})).at("/mcp/behind");
    let result = say_hello.result(&node).await;
    assert_eq!(
        result["content"][0]["text"],
        "Hello, Ada! Greetings from mcp-fleet."
    );

    let node = Setup::new().server("behind", &url).start().await;
    let refused = say_hello.send(&node).await.response;
    let message = refused["error"]["message"].as_str().expect("an error");
    assert!(message.contains("cannot connect"), "{refused}");
}

#[tokio::test]
async fn http_2_is_agreed_upon_and_plain_http_is_not_understood() {
    let (_directory, certificate) = certificate();
    let node = speaking_tls(&certificate).start().await;
    let mut config = certificates::client(Some(&certificate.file)).expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = tokio::net::TcpStream::connect(node.address)
        .await
        .expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let plain = call("say_hello", json!({}))
        .at("/mcp/demo")
        .try_at(node.address)
        .await;
    assert!(plain.is_err());
}

/// Whether a client that trusts `authority` is content with what it is shown.
async fn is_trusted(identity: &Arc<Identity>, authority: &Path) -> bool {
    let client = certificates::client(Some(authority)).expect("a certificate");
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let acceptor = identity.acceptor().expect("an acceptor");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(client));
    let (accepted, connected) =
        tokio::join!(acceptor.accept(ours), connector.connect(name, theirs));
    drop(accepted);
    connected.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_bad_one_never() {
    let (directory, shown) = certificate();
    let (_other, renewed) = certificate();
    let files = Tls {
        certificate: directory.path().join("shown.pem"),
        key: directory.path().join("shown.key"),
    };
    let install = |certificate: &Path, key: &Path| {
        std::fs::copy(certificate, &files.certificate).expect("a copy");
        std::fs::copy(key, &files.key).expect("a copy");
    };
    install(&shown.file, &shown.key);
    let identity = Identity::load(files.clone()).expect("good files");
    let minute = std::time::Duration::from_secs(60);
    let mut following = std::pin::pin!(Arc::clone(&identity).follow());
    let mut a_minute_passes = async || {
        tokio::time::timeout(minute, &mut following)
            .await
            .unwrap_err();
    };
    assert!(is_trusted(&identity, &shown.file).await);
    assert!(!is_trusted(&identity, &renewed.file).await);

    a_minute_passes().await;
    install(&renewed.file, &shown.key);
    a_minute_passes().await;
    assert!(
        is_trusted(&identity, &shown.file).await,
        "the files do not belong together"
    );

    install(&renewed.file, &renewed.key);
    a_minute_passes().await;
    assert!(is_trusted(&identity, &renewed.file).await);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (directory, good) = certificate();
    let missing = directory.path().join("missing.pem");
    for (certificate, key, culprit) in [
        (&missing, &good.key, "node.tls.certificate"),
        (&good.key, &good.key, "node.tls.certificate"),
        (&good.file, &missing, "node.tls.key"),
        (&good.file, &good.file, "node.tls.key"),
    ] {
        let files = Tls {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let refused = format!("{:#}", Identity::load(files).expect_err("bad files"));
        assert!(refused.starts_with(culprit), "{refused}");
    }
}
