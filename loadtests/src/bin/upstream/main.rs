//! The MCP server behind the load tests: it answers from memory.
//!
//! `upstream LISTEN` (`HOST:PORT`) serves `POST /mcp/demo` in the modern era
//! (2026-07-28) and `POST /mcp/sessions` in the legacy one (2025-11-25, with
//! sessions), each with the same fifty tools, and the same lists as plain arrays
//! by `GET /mcp/{demo,sessions,*}/tools/list`, so that a bare proxy has something
//! to fetch where the gateway answers by itself. `GET /stats` tells how often it
//! was asked what.
//!
//! `/mcp/changing` and `/mcp/changing-sessions` are the same for the soak, with a
//! list that changes with `POST /change` and streams that say so.
//!
//! It is strict about the headers and sessions a gateway has to send, so that a
//! gateway cannot be fast by leaving them out, and lazy about everything else.

#![expect(
    clippy::disallowed_methods,
    reason = "a load tool: its connections end with the process"
)]

mod changes;
mod counts;
mod eras;
mod message;
mod tools;

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    changes::{Changes, Events},
    counts::Counts,
    tools::Catalogue,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Full<Bytes>, Events>>;

struct Upstream {
    catalogue: Catalogue,
    counts: Counts,
    changes: Changes,
}

/// What a server offers.
struct Face<'a> {
    tools: &'a str,
    /// Its list changes, and it says so.
    changes: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Some(listen) = std::env::args().nth(1) else {
        return Err("usage: upstream LISTEN".into());
    };
    let upstream = Arc::new(Upstream {
        catalogue: Catalogue::new(),
        counts: Counts::default(),
        changes: Changes::default(),
    });
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true).ok();
        upstream.counts.connection();
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let service = service_fn(|request| upstream.serve(request));
            // A connection that breaks concerns its client, who sees it.
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Upstream {
    async fn serve(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        Ok(match (request.method(), request.uri().path()) {
            (&Method::POST, "/mcp/demo" | "/mcp/sessions") => {
                let tools = self.catalogue.as_str();
                let changes = false;
                self.post(request, &Face { tools, changes }).await
            }
            (&Method::POST, "/mcp/changing" | "/mcp/changing-sessions") => {
                let tools = &self.changes.tools();
                let changes = true;
                self.post(request, &Face { tools, changes }).await
            }
            (&Method::POST, "/change") => json(self.changes.change().to_string()),
            (&Method::DELETE, "/mcp/sessions" | "/mcp/changing-sessions") => {
                eras::end_session(&self.counts)
            }
            (&Method::GET, path) => self.get(path),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        })
    }

    async fn post(&self, request: Request<Incoming>, face: &Face<'_>) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        let answer = if head.uri.path().ends_with("sessions") {
            eras::legacy(self, face, &head.headers, &body)
        } else {
            eras::modern(self, face, &head.headers, &body)
        };
        answer.unwrap_or_else(|_| status(StatusCode::BAD_REQUEST))
    }

    fn get(&self, path: &str) -> Answer {
        let array = match path {
            "/stats" => {
                self.counts.connection_only_asks_for_counts();
                return json(self.counts.to_json());
            }
            "/mcp/demo/tools/list" | "/mcp/sessions/tools/list" => self.catalogue.one(),
            "/mcp/*/tools/list" => self.catalogue.merged(),
            "/mcp/changing-sessions" => return self.changes.standalone(),
            "/mcp/demo" | "/mcp/sessions" | "/mcp/changing" => {
                return status(StatusCode::METHOD_NOT_ALLOWED);
            }
            _ => return status(StatusCode::NOT_FOUND),
        };
        self.counts.plain_list();
        json(array)
    }
}

fn json(body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}
