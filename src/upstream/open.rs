//! Opening a session: `initialize` and `notifications/initialized`, over
//! Streamable HTTP or over a link that carries everything on one stream.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming as Body;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    Description, Shared, UpstreamError,
    changes::Changes,
    client::{Target, failure},
    era::describe_initialized,
    exchange::one_line,
    incoming::{EventReader, Incoming, answers, read},
    link::{Channel, Link, session_headers},
    request::{Begun, begin, body, rpc_error},
    resume::never_answered,
    router::{Interest, Kind, Owner, Router},
    session::{Session, Terms},
};
use crate::{
    ids::ReplicaId,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        header,
        json::{self, RawObject},
        message::{self, Answer, RequestId},
        method,
        version::Version,
    },
};

/// For whom a session is opened, and with what.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) owner: Owner,
    pub(super) capabilities: ClientCapabilities,
    pub(super) client_info: Box<Raw>,
    /// Offered; the replica may answer another.
    pub(super) version: Version,
    /// How long the record of a client's session lives.
    pub(super) ttl: Duration,
}

impl Want {
    /// The parameters of `initialize`.
    fn params(&self) -> Box<Raw> {
        let mut params = RawObject::new();
        params.set("protocolVersion", json::raw_str(self.version.as_str()));
        params.set("capabilities", self.capabilities.for_legacy(self.version));
        params.set("clientInfo", &*self.client_info);
        params.to_raw()
    }

    pub(super) fn terms(self, description: Description) -> Terms {
        Terms {
            version: description.version,
            description: Arc::new(description),
            capabilities: self.capabilities,
            owner: self.owner,
        }
    }
}

/// Opens a Streamable HTTP session.
pub(super) async fn over_http(
    shared: &Arc<Shared>,
    replica: &ReplicaId,
    target: &Target,
    changes: &Changes,
    want: Want,
    deadline: Instant,
) -> Result<Arc<Session>, UpstreamError> {
    let id = shared.next_id();
    let message = body(&id, method::INITIALIZE, Some(&want.params()));
    // A modern server may be asked for a session too and wants its header;
    // the others do not look at it.
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(header::METHOD, HeaderValue::from_static(method::INITIALIZE));
    let posted = shared
        .http
        .post(target, || headers.clone(), message, deadline);
    let response = posted.await?;
    let status = response.status();
    let session_id = response.headers().get(header::SESSION_ID).cloned();
    if !status.is_success() {
        let (error, text) = failure(response, deadline).await;
        return Err(match rpc_error(status, text.as_ref(), &id) {
            Some(answer) => UpstreamError::Refused {
                status: Some(status),
                answer,
            },
            None => error,
        });
    }
    let limit = shared.settings.max_message_bytes;
    let result = match read_whole(response, &id, limit, deadline).await? {
        Answer::Result(result) => result,
        answer @ Answer::Error(_) => {
            return Err(UpstreamError::Refused {
                status: Some(status),
                answer,
            });
        }
    };
    let description = describe_initialized(&result)?;
    if let Some(id) = &session_id {
        check_session_id(id)?;
    }
    let headers = session_headers(description.version, session_id.as_ref());
    let link = Link::new(
        replica.clone(),
        Channel::Http {
            target: target.clone(),
            headers,
        },
        Router::new(want.owner, Kind::Standalone, changes.clone()),
        shared.closing.child_token(),
    );
    initialized(shared, &link, deadline).await?;
    let session = Session::new(shared, want.terms(description), link);
    if session.terms.owner == Owner::Pool && session.is_interactive() {
        listen_for_stray_questions(shared, &session).await;
    }
    Ok(session)
}

/// Initializes over a link whose stream is being read already.
pub(super) async fn over_link(
    shared: &Arc<Shared>,
    link: Arc<Link>,
    want: Want,
    deadline: Instant,
) -> Result<Arc<Session>, UpstreamError> {
    let answer = ask(shared, &link, method::INITIALIZE, &want.params(), deadline).await?;
    let result = match answer {
        Answer::Result(result) => result,
        answer @ Answer::Error(_) => {
            return Err(UpstreamError::Refused {
                status: None,
                answer,
            });
        }
    };
    let description = describe_initialized(&result)?;
    initialized(shared, &link, deadline).await?;
    Ok(Session::new(shared, want.terms(description), link))
}

/// Sends a request over a link and waits for its answer.
pub(super) async fn ask(
    shared: &Shared,
    link: &Arc<Link>,
    method: &str,
    params: &Raw,
    deadline: Instant,
) -> Result<Answer, UpstreamError> {
    let id = shared.next_id();
    let mut registration = link.router.register(&id, Interest::default())?;
    let message = one_line(body(&id, method, Some(params)));
    link.send(shared, message, deadline).await?;
    loop {
        let incoming = timeout_at(deadline, registration.next())
            .await
            .map_err(|_| UpstreamError::TimedOut { sent: true })??;
        if let Incoming::Answer { answer, .. } = incoming {
            return Ok(answer);
        }
    }
}

async fn initialized(shared: &Shared, link: &Link, deadline: Instant) -> Result<(), UpstreamError> {
    let mut notice = Vec::new();
    message::write_notification(&mut notice, method::INITIALIZED, None);
    match link.send(shared, notice.into(), deadline).await {
        // Some servers that keep no session refuse what they have no use for.
        Err(UpstreamError::Http { status, .. }) if status.is_client_error() => {
            debug!(replica = %link.replica, %status, "notifications/initialized was refused");
            Ok(())
        }
        other => other,
    }
}

/// Reads the answer out of a response, whatever form it has.
pub(super) async fn read_whole(
    response: Response<Body>,
    id: &RequestId,
    limit: usize,
    deadline: Instant,
) -> Result<Answer, UpstreamError> {
    let response = match begin(response, id, limit, deadline).await? {
        Begun::Answered(_, answer) => return Ok(answer),
        Begun::Streaming(response) => response,
    };
    let mut events = EventReader::new(response.into_body(), limit);
    let mut messages = VecDeque::new();
    loop {
        let event = timeout_at(deadline, events.next())
            .await
            .map_err(|_| UpstreamError::TimedOut { sent: true })??;
        let event = event.ok_or_else(never_answered)?;
        if !event.is_message() {
            continue;
        }
        read(&event.data, &mut messages)?;
        for message in messages.drain(..) {
            if let Incoming::Answer { id: theirs, answer } = message
                && answers(theirs.as_ref(), id, &answer)
            {
                if let Some(rest) = events.finish() {
                    rest.await;
                }
                return Ok(answer);
            }
        }
    }
}

/// Some servers ask on the standalone stream what belongs to a call. With one
/// call in flight it can be told which.
async fn listen_for_stray_questions(shared: &Arc<Shared>, session: &Arc<Session>) {
    let patience = Instant::now() + Duration::from_secs(1);
    if let Err(error) = session.link.read_standalone(shared, patience).await {
        debug!(replica = %session.link.replica, %error, "no standalone stream");
    }
}

fn check_session_id(id: &HeaderValue) -> Result<(), UpstreamError> {
    let visible = |byte: &u8| (0x21..=0x7e).contains(byte);
    if !id.is_empty() && id.as_bytes().iter().all(visible) {
        Ok(())
    } else {
        Err(UpstreamError::Malformed(
            "a session id has to be visible ASCII".into(),
        ))
    }
}
