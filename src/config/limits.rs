//! `[limits]`: what a client, a server or a neighbour may ask of this node.

use std::time::Duration;

use super::{section::Section, values};

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
    /// Servers registered through the API. Default 1000; more gets 507.
    pub registered_servers: u32,
    /// Deployments of the fleet. Default 200; more gets 507.
    pub deployments: u32,
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
    /// A legacy session ends this long after it began, used or not. Default 24 h.
    pub session_max_age: Duration,
    /// Resources one legacy session, or one stream of a modern client, may
    /// listen to. Default 1000.
    pub subscriptions: usize,
    /// Rounds of questions a server may ask within one call. Default 20.
    pub rounds: u32,
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
            registered_servers: 1000,
            deployments: 200,
            connections: 20_000,
            http2_streams: 200,
            streams: 10_000,
            sessions: 10_000,
            session_idle: minutes(30),
            session_max_age: minutes(24 * 60),
            subscriptions: 1000,
            rounds: 20,
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

impl Limits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let second = Duration::from_secs(1);
        let within = |longest: Duration| values::duration(second..=longest);
        let day = Duration::from_secs(86_400);
        let limits = Self {
            body: section.read("body", defaults.body, values::size(1 << 10..=1 << 30)),
            headers: section.read("headers", defaults.headers, values::size(8 << 10..=1 << 20)),
            nesting: section.read("nesting", defaults.nesting, values::count(8..=1000)),
            batch: section.read("batch", defaults.batch, values::count(1..=10_000)),
            message: section.read("message", defaults.message, values::size(1 << 10..=1 << 30)),
            list_pages: section.read("list_pages", defaults.list_pages, values::count(1..=10_000)),
            list_items: section.read(
                "list_items",
                defaults.list_items,
                values::count(1..=1_000_000),
            ),
            registered_servers: section.read(
                "registered_servers",
                defaults.registered_servers,
                values::count(0..=100_000),
            ),
            deployments: section.read(
                "deployments",
                defaults.deployments,
                values::count(0..=10_000),
            ),
            connections: section.read(
                "connections",
                defaults.connections,
                values::count(1..=1_000_000),
            ),
            http2_streams: section.read(
                "http2_streams",
                defaults.http2_streams,
                values::count(1..=10_000),
            ),
            streams: section.read("streams", defaults.streams, values::count(1..=1_000_000)),
            sessions: section.read("sessions", defaults.sessions, values::count(1..=1_000_000)),
            session_idle: section.read("session_idle", defaults.session_idle, within(30 * day)),
            session_max_age: section.read(
                "session_max_age",
                defaults.session_max_age,
                within(30 * day),
            ),
            subscriptions: section.read(
                "subscriptions",
                defaults.subscriptions,
                values::count(1..=100_000),
            ),
            rounds: section.read("rounds", defaults.rounds, values::count(1..=1000)),
            stream_events: section.read(
                "stream_events",
                defaults.stream_events,
                values::count(1..=100_000),
            ),
            stream_ttl: section.read("stream_ttl", defaults.stream_ttl, within(day)),
            waiting: section.read("waiting", defaults.waiting, values::count(1..=1_000_000)),
            wait: section.read("wait", defaults.wait, within(day)),
            header_timeout: section.read("header_timeout", defaults.header_timeout, within(day)),
            body_timeout: section.read("body_timeout", defaults.body_timeout, within(day)),
            call: section.read("call", defaults.call, within(day)),
        };
        section.finish();
        limits
    }
}
