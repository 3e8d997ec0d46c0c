//! `[limits]`: what a client, a server or a neighbour may ask of this node.

use std::time::Duration;

/// What a client, a server or a neighbour may ask of this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of a request body. Default 4 MiB; more gets 413.
    pub body: usize,
    /// Bytes of all header lines of a request. Default 32 KiB; more gets 431.
    pub headers: usize,
    /// Depth of nested arrays and objects in a message. Default 128.
    pub nesting: u32,
    /// Messages of a JSON-RPC batch, calls of one `/api/batch`. Default 100.
    pub batch: usize,
    /// Bytes of one message (also of one event or line) from a server. Default 16 MiB.
    pub message: usize,
    /// Pages followed of one upstream list. Default 200.
    pub list_pages: usize,
    /// Items taken of one upstream list. Default 20,000.
    pub list_items: usize,
    /// Client connections of this node. Default 20,000; more wait in the
    /// operating system's queue.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection. Default 200.
    pub http2_streams: u32,
    /// Event streams open at this node. Default 10,000; more gets 503.
    pub streams: usize,
    /// Legacy sessions this node keeps state of. Default 10,000; more gets 503.
    pub sessions: usize,
    /// A legacy session unused for this long ends. Default 30 min.
    pub session_idle: Duration,
    /// Events kept of one stream for resuming. Default 1000; older ones are dropped.
    pub stream_events: u32,
    /// How long a broken stream can be resumed. Default 5 min.
    pub stream_ttl: Duration,
    /// Calls of this node that wait for their client's answer to a question of
    /// the server. Default 1000; more gets 503.
    pub waiting: usize,
    /// How long such a call waits. Default 5 min.
    pub wait: Duration,
    /// Time for the headers of a request to arrive; also how long an idle
    /// HTTP/1 connection is kept. Default 60 s.
    pub header_timeout: Duration,
    /// Time for the body of a request to arrive. Default 30 s.
    pub body_timeout: Duration,
    /// Longest a call may take, however much progress it reports. Default 10 min.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self {
            body: 4 << 20,
            headers: 32 << 10,
            nesting: 128,
            batch: 100,
            message: 16 << 20,
            list_pages: 200,
            list_items: 20_000,
            connections: 20_000,
            http2_streams: 200,
            streams: 10_000,
            sessions: 10_000,
            session_idle: minutes(30),
            stream_events: 1000,
            stream_ttl: minutes(5),
            waiting: 1000,
            wait: minutes(5),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            call: minutes(10),
        }
    }
}
