//! Asking a replica which era it speaks. How the reply is read is in `era`.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::{Peer, Speaks, Verdict, Way};
use crate::{
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::{self, OutgoingMeta, TraceContext},
        header, json,
        message::Answer,
        method,
        version::{Era, Version},
    },
    upstream::{
        Description, Shared, UpstreamError,
        client::{Target, failure},
        demo,
        era::{Finding, Reply, describe_discovered, read_reply},
        open::read_whole,
        request::{body, rpc_error},
    },
};

impl Peer {
    pub(super) async fn probe_http(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        deadline: Instant,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        let mut version = Version::LATEST_MODERN;
        for _ in 0..2 {
            let reply = discover_over_http(shared, target, version, deadline).await;
            match read_reply(reply, version) {
                Finding::Modern(version, description) => {
                    let description = Some(Arc::new(*description));
                    return Ok(self.settle(Speaks::ModernHttp(version), description));
                }
                Finding::AskAgain(other) => version = other,
                Finding::Legacy => {
                    // Which of the legacy transports it is, was found out before.
                    let known = self.speaks().filter(|speaks| speaks.era() == Era::Legacy);
                    let speaks = known.unwrap_or(Speaks::LegacyHttp { verified: false });
                    return Ok(self.settle(speaks, None));
                }
                Finding::Reserved(error) | Finding::NoEvidence(error) => return Err(error),
                Finding::Incompatible(why) => return Err(UpstreamError::Incompatible(why)),
            }
        }
        Err(UpstreamError::Incompatible(
            "it refuses the version it names".into(),
        ))
    }

    pub(super) async fn recheck(&self, shared: &Arc<Shared>, old: &Arc<Verdict>) {
        let Way::Http(target) = &self.way else {
            return;
        };
        let deadline = Instant::now() + shared.settings.probe_timeout;
        let reply = discover_over_http(shared, target, Version::LATEST_MODERN, deadline).await;
        match read_reply(reply, Version::LATEST_MODERN) {
            Finding::Modern(version, description) => {
                self.settle(Speaks::ModernHttp(version), Some(Arc::new(*description)));
                for (_, session) in self.slots.take_all() {
                    session.retire(shared);
                }
            }
            // Checked, or not to be checked now: either way not again for a while.
            Finding::Legacy
            | Finding::Reserved(_)
            | Finding::AskAgain(_)
            | Finding::NoEvidence(_)
            | Finding::Incompatible(_) => {
                self.settle(old.speaks, old.description.clone());
            }
        }
    }
}

fn discover_params(shared: &Shared, version: Version) -> Box<Raw> {
    envelope::with_modern_meta(
        None,
        &OutgoingMeta {
            version,
            capabilities: &carried(),
            client_info: &shared.settings.client_info,
            log_level: None,
            progress_token: None,
            trace: &TraceContext::default(),
        },
    )
}

async fn discover_over_http(
    shared: &Shared,
    target: &Target,
    version: Version,
    deadline: Instant,
) -> Reply {
    let id = shared.next_id();
    let message = body(
        &id,
        method::DISCOVER,
        Some(&discover_params(shared, version)),
    );
    let mut headers = HeaderMap::with_capacity(8);
    header::standard_headers(&mut headers, version, method::DISCOVER, None);
    let response = match shared
        .http
        .post(target, || headers.clone(), message, deadline)
        .await
    {
        Ok(response) => response,
        Err(error) => return Reply::Failed(error),
    };
    let status = response.status();
    if !status.is_success() {
        let (error, text) = failure(response, deadline).await;
        return match rpc_error(status, text.as_ref(), &id) {
            Some(answer) => Reply::Answer(Some(status), answer),
            None => Reply::Failed(error),
        };
    }
    let limit = shared.settings.max_message_bytes;
    match read_whole(response, &id, limit, deadline).await {
        Ok(answer) => Reply::Answer(Some(status), answer),
        Err(error) => Reply::Failed(error),
    }
}

/// The description of the demo server.
pub(super) fn describe_demo() -> Result<Description, UpstreamError> {
    match demo::answer(method::DISCOVER, None) {
        Answer::Result(result) => describe_discovered(
            &result,
            Version::LATEST_MODERN,
            vec![Version::LATEST_MODERN.as_str().to_owned()],
        ),
        answer @ Answer::Error(_) => Err(UpstreamError::Refused {
            status: None,
            answer,
        }),
    }
}

/// What this gateway can carry back from a server to a client that supports it.
fn carried() -> ClientCapabilities {
    let all = json::raw(&serde_json::json!({
        "elicitation": {"form": {}, "url": {}},
        "roots": {},
        "sampling": {},
    }));
    ClientCapabilities::parse(&all).unwrap_or_else(|_| ClientCapabilities::none())
}
