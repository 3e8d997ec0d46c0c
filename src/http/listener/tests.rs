//! Real sockets on loopback; time is real too, so the waits are short.

use axum::{Router, routing::get};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Node {
    address: SocketAddr,
    tasks: Tasks,
}

fn settings() -> ListenerSettings {
    ListenerSettings {
        max_connections: 100,
        max_header_bytes: 2000,
        max_headers: 50,
        header_timeout: Duration::from_secs(5),
        max_http2_streams: 10,
        drain: Duration::from_secs(5),
    }
}

async fn node(settings: ListenerSettings) -> Node {
    let slow = || async {
        sleep(Duration::from_millis(300)).await;
        "slow"
    };
    let app = Router::new()
        .route("/", get(async || "hello"))
        .route("/slow", get(slow))
        .route("/hangs", get(std::future::pending::<()>));
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    let tasks = Tasks::new();
    let serving = serve(
        listener,
        None,
        app,
        settings,
        tasks.clone(),
        Metrics::for_tests(),
    );
    tasks.spawn("listener", serving);
    Node { address, tasks }
}

impl Node {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    async fn stopped(&self) {
        self.tasks.stop();
        timeout(SOON, self.tasks.finished())
            .await
            .expect("the node stops");
    }
}

async fn send(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.expect("written");
}

/// All that comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset instead of a close is an end too.
    timeout(SOON, stream.read_to_end(&mut all))
        .await
        .expect("closed in time")
        .ok();
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn http1_requests_are_answered() {
    let node = node(settings()).await;
    let mut stream = node.connect().await;
    send(
        &mut stream,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    node.stopped().await;
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let node = node(settings()).await;
    let io = TokioIo::new(node.connect().await);
    let executor = connection::Streams(node.tasks.clone());
    let shaken = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut client, connection) = shaken.expect("a handshake");
    let driving = node.tasks.clone();
    driving.spawn_brief(async move {
        connection.await.ok();
    });
    let request = Request::get(format!("http://{}/", node.address));
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "hello");
    drop(client);
    node.stopped().await;
}

#[tokio::test]
async fn large_headers_are_refused_with_the_setting() {
    let node = node(settings()).await;
    let long = "x".repeat(2100);
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nlong: {long}\r\n\r\n");
    let mut stream = node.connect().await;
    send(&mut stream, &request).await;
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 431") && answer.contains("limits.headers"),
        "{answer}"
    );

    let request = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let mut stream = node.connect().await;
    // The node may have closed before all is written.
    stream.write_all(request.as_bytes()).await.ok();
    assert!(!rest(&mut stream).await.contains("hello"));

    let many: String = (0..60).map(|n| format!("h{n}: 1\r\n")).collect();
    let mut stream = node.connect().await;
    send(
        &mut stream,
        &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    )
    .await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    node.stopped().await;
}

#[tokio::test]
async fn whoever_sends_no_request_is_cut_off() {
    let node = node(ListenerSettings {
        header_timeout: Duration::from_millis(200),
        ..settings()
    })
    .await;
    for beginning in [
        "",
        "P",
        "PRI * HT",
        "GET / HT",
        "GET / HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut stream = node.connect().await;
        send(&mut stream, beginning).await;
        let answer = rest(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{beginning:?}: {answer}");
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_stopping_node_finishes_what_it_began_and_closes_idle_connections() {
    let node = node(settings()).await;
    let mut idle = node.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.expect("an answer");
    let mut silent = node.connect().await;
    let mut busy = node.connect().await;
    send(&mut busy, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    node.stopped().await;
    let answer = rest(&mut busy).await;
    assert!(
        answer.contains("connection: close") && answer.ends_with("slow"),
        "{answer}"
    );
    rest(&mut idle).await;
    rest(&mut silent).await;
    assert!(
        TcpStream::connect(node.address).await.is_err(),
        "the port is closed"
    );
}

/// What a load balancer sends on a connection it kept, before it knows.
#[tokio::test]
async fn a_stopping_node_answers_on_idle_connections_and_says_that_it_was_the_last_answer() {
    let node = node(settings()).await;
    let mut kept = node.connect().await;
    assert!(!ask(&mut kept).await.contains("connection: close"));
    node.tasks.stop();
    while !ask(&mut node.connect().await)
        .await
        .contains("connection: close")
    {}
    assert!(ask(&mut kept).await.contains("connection: close"));
    assert_eq!(rest(&mut kept).await, "");
    node.stopped().await;
}

/// The whole answer of `/`.
async fn ask(stream: &mut TcpStream) -> String {
    send(stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut told = Vec::new();
    while !told.ends_with(b"hello") {
        let read = timeout(SOON, stream.read_buf(&mut told)).await;
        assert!(read.expect("in time").expect("no reset") > 0, "closed");
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[tokio::test]
async fn draining_ends_in_time_whatever_hangs() {
    let node = node(ListenerSettings {
        drain: Duration::from_millis(200),
        ..settings()
    })
    .await;
    let mut stream = node.connect().await;
    send(&mut stream, "GET /hangs HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    node.stopped().await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let node = node(ListenerSettings {
        max_connections: 1,
        ..settings()
    })
    .await;
    let mut first = node.connect().await;
    send(&mut first, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut start = [0; 15];
    first.read_exact(&mut start).await.expect("an answer");
    let mut second = node.connect().await;
    send(
        &mut second,
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    let mut byte = [0; 1];
    let early = timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(
        early.is_err(),
        "the second was served while the first is held"
    );
    drop(first);
    assert!(rest(&mut second).await.ends_with("hello"));
    node.stopped().await;
}
