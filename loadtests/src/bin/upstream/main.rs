//! The MCP server behind the load tests: it answers from memory.
//!
//! `upstream LISTEN` (`HOST:PORT`) serves these, in HTTP/1.1 and HTTP/2:
//!
//! | `POST /mcp/...` | protocol | what |
//! |---|---|---|
//! | `demo` | 2026-07-28 | fifty tools |
//! | `sessions` | 2025-11-25, with sessions | the same |
//! | `sessionless` | 2025-11-25, without | the same |
//! | `few`, `many` | 2026-07-28 | five tools; two thousand in two pages |
//! | `slow` | 2026-07-28 | fifty tools; a list takes 300 ms |
//! | `stalled` | | accepts everything and never answers |
//! | `changing`, `changing-sessions` | both | a list that changes with `POST /change`, and streams that say so |
//!
//! The lists can be had as plain arrays by `GET /mcp/{server}/tools/list` (`*`:
//! `demo` and `sessions` merged), so that a bare proxy has something to fetch where
//! the gateway answers by itself. `GET /stats` tells how often it was asked what.
//!
//! It is strict about the headers and sessions a gateway has to send, so that a
//! gateway cannot be fast by leaving them out, and lazy about everything else.

#![expect(
    clippy::disallowed_methods,
    reason = "a load tool: its connections end with the process"
)]

mod changes;
mod counts;
mod echo;
mod eras;
mod faces;
mod message;
mod tools;

use std::{convert::Infallible, future, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    changes::{Changes, Events},
    counts::Counts,
    faces::{Era, Face},
    tools::Catalogue,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Full<Bytes>, Events>>;

struct Upstream {
    catalogue: Catalogue,
    counts: Counts,
    changes: Changes,
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
            let service = service_fn(move |request| Arc::clone(&upstream).serve(request));
            // A connection that breaks concerns its client, who sees it.
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Upstream {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let path = request.uri().path();
        Ok(match (request.method(), Face::at(path)) {
            (&Method::POST, Some(face)) => self.post(request, &face).await,
            (&Method::DELETE, Some(face)) if face.era == Era::Sessions => {
                eras::end_session(&self.counts)
            }
            (&Method::GET, Some(face)) if face.era == Era::Sessions && face.changes() => {
                self.changes.standalone()
            }
            (&Method::POST, None) if path == "/mcp/stalled" => future::pending().await,
            (&Method::POST, None) if path == "/change" => json(self.changes.change().to_string()),
            (&Method::GET, None) => self.get(path),
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        })
    }

    async fn post(&self, request: Request<Incoming>, face: &Face) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        let answer = match face.era {
            Era::Modern => eras::modern(self, face, &head.headers, &body),
            Era::Sessions | Era::Sessionless => eras::legacy(self, face, &head.headers, &body),
        };
        if !face.list_takes.is_zero() && eras::is_list(&head.headers) {
            sleep(face.list_takes).await;
        }
        answer.unwrap_or_else(|_| status(StatusCode::BAD_REQUEST))
    }

    fn get(&self, path: &str) -> Answer {
        if path == "/stats" {
            self.counts.connection_only_asks_for_counts();
            return json(self.counts.to_json());
        }
        let server = path
            .strip_prefix("/mcp/")
            .and_then(|path| path.strip_suffix("/tools/list"));
        match server.and_then(|server| self.catalogue.plain(server)) {
            Some(array) => {
                self.counts.plain_list();
                json(array)
            }
            None => status(StatusCode::NOT_FOUND),
        }
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
