//! Opening sessions: which transport, and what a refusal tells about the verdict.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::{Peer, Speaks, Way};
use crate::{
    mcp::error::{HEADER_MISMATCH, UNSUPPORTED_VERSION},
    upstream::{
        Shared, UpstreamError,
        client::Target,
        dedicated, legacy_sse,
        open::{self, Want},
        pool::SlotKey,
        router::Owner,
        session::Session,
    },
};

impl Peer {
    /// Opens a session of the kind the verdict asks for.
    ///
    /// # Errors
    /// When the replica does not open one. A verdict that proves wrong is corrected.
    pub(in crate::upstream) async fn open(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        key: &SlotKey,
        want: Want,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        let verdict = self.verdict(shared, deadline).await?;
        match (&self.way, verdict.speaks) {
            (Way::Http(target), Speaks::LegacyHttp { verified }) => {
                let opened =
                    dedicated::open(self, shared, key, target, want.clone(), deadline).await;
                match opened {
                    Ok(session) => {
                        if !verified {
                            self.settle(Speaks::LegacyHttp { verified: true }, None);
                        }
                        Ok(session)
                    }
                    Err(error) if says_modern(&error) => {
                        self.forget(&verdict);
                        Err(error)
                    }
                    Err(error) if is_no_streamable(&error) && !verified => {
                        self.open_sse_instead(shared, target, want, error, deadline)
                            .await
                    }
                    Err(error) => {
                        if is_no_streamable(&error) {
                            self.forget(&verdict);
                        }
                        Err(error)
                    }
                }
            }
            (Way::Http(target), Speaks::LegacySse) => {
                let opened = self.open_sse(shared, target, want, deadline).await;
                if let Err(UpstreamError::NotOffered(_) | UpstreamError::Malformed(_)) = &opened {
                    self.forget(&verdict);
                }
                opened
            }
            (Way::Http(target), Speaks::ModernHttp(_)) if want.owner == Owner::Client => {
                let opened = dedicated::open(self, shared, key, target, want, deadline).await;
                if opened.as_ref().is_err_and(is_final) {
                    self.note_refusal(shared);
                }
                opened
            }
            // The verdict follows from the endpoint; these have no sessions.
            (_, Speaks::ModernHttp(_) | Speaks::Demo) | (Way::Demo, _) => {
                Err(UpstreamError::NotOffered("sessions"))
            }
        }
    }

    /// `initialize` was refused: a server of 2024-11-05 has its stream at this address.
    async fn open_sse_instead(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        want: Want,
        refusal: UpstreamError,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        match self.open_sse(shared, target, want, deadline).await {
            Ok(session) => {
                self.settle(Speaks::LegacySse, None);
                Ok(session)
            }
            Err(error) => {
                // Neither era is certain: the next caller probes again.
                self.verdict.store(None);
                match error {
                    UpstreamError::NotOffered(_) | UpstreamError::Malformed(_) => Err(refusal),
                    other => Err(other),
                }
            }
        }
    }

    async fn open_sse(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        want: Want,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        let owner = want.owner;
        let link =
            legacy_sse::connect(shared, &self.id, target, &self.changes, owner, deadline).await?;
        let unless_opened = link.end.clone().drop_guard();
        let session = open::over_link(shared, link, want, deadline).await?;
        unless_opened.disarm();
        Ok(session)
    }
}

/// Whether a refusal of `initialize` leaves HTTP+SSE as a possibility.
fn is_no_streamable(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Http { status, .. } => is_refusal(*status),
        UpstreamError::Refused { status, .. } => status.is_some_and(is_refusal),
        _ => false,
    }
}

/// Whether trying `initialize` again is no use.
fn is_final(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Refused { .. } | UpstreamError::Incompatible(_)
    ) || is_no_streamable(error)
}

/// Whether a refusal of `initialize` comes from a modern server.
pub(in crate::upstream) fn says_modern(error: &UpstreamError) -> bool {
    let UpstreamError::Refused { answer, .. } = error.root() else {
        return false;
    };
    matches!(
        answer.error_code(),
        Some(UNSUPPORTED_VERSION | HEADER_MISMATCH)
    )
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 405)
}
