//! What a legacy client sends beside requests: notifications, its log level,
//! and answers to questions.

use std::sync::Arc;

use tokio::time::Instant;

use super::mailbox_address;
use crate::{
    ids::Principal,
    mcp::{
        Raw,
        envelope::{LogLevel, TraceContext},
        json,
        message::{Answer, RequestId},
        method,
    },
    relay::{
        Call, Relay, RelayError,
        mailbox::{Delivery, Letter},
    },
    servers::Server,
    session::Session,
    store::StoreError,
    upstream::{ClientSession, Event},
};

impl Relay {
    /// Passes a notification of a legacy client on to its session at a server.
    pub(crate) async fn notify(
        &self,
        server: &Server,
        session: &ClientSession,
        method: &str,
        params: Option<&Raw>,
    ) {
        let Some(replica) = self.home_of(server, session).await else {
            return;
        };
        let deadline = Instant::now() + server.timeout;
        if let Err(error) = self
            .upstreams
            .notify(&replica, session, method, params, deadline)
            .await
        {
            tracing::debug!(server = %server.id, method, error = &error as &dyn std::error::Error, "a notification was not passed on");
        }
    }

    /// Tells a server the log level of a client session, if that server keeps one.
    pub(crate) async fn set_level(
        self: &Arc<Self>,
        server: &Arc<Server>,
        session: &ClientSession,
        principal: Principal,
        level: LogLevel,
    ) {
        let deadline = Instant::now() + server.timeout;
        // A modern server has no such method and learns the level with each call.
        if !self.keeps_session(server, session, deadline).await {
            return;
        }
        let described = self.describe(server, deadline).await;
        if !described.is_ok_and(|described| described.capabilities.has_logging()) {
            return;
        }
        let call = Call {
            server: Arc::clone(server),
            method: method::LOGGING_SET_LEVEL.to_owned(),
            params: Some(json::raw(&serde_json::json!({ "level": level.as_str() }))),
            principal,
            capabilities: session.capabilities.clone(),
            log_level: None,
            progress_token: None,
            trace: TraceContext::default(),
            headers: Vec::new(),
            repeatable: false,
            session: Some(session.clone()),
        };
        if let Err(error) = self.finish_quietly(&call, deadline).await {
            tracing::debug!(server = %server.id, %error, "a log level was not passed on");
        }
    }

    /// Whether the server keeps a session for this client.
    pub(crate) async fn keeps_session(
        &self,
        server: &Server,
        session: &ClientSession,
        deadline: Instant,
    ) -> bool {
        match self.home_of(server, session).await {
            Some(replica) => {
                self.upstreams
                    .keeps_session(&replica, session, deadline)
                    .await
            }
            None => false,
        }
    }

    async fn finish_quietly(
        self: &Arc<Self>,
        call: &Call,
        deadline: Instant,
    ) -> Result<(), RelayError> {
        let mut begun = self.begin(call, deadline).await?;
        while !matches!(begun.next(deadline).await?, Event::Done(_)) {}
        Ok(())
    }

    /// Passes a legacy client's answer to whoever asked, on any node. An
    /// answer nobody waits for is dropped.
    ///
    /// # Errors
    /// When the asker is on another node and the store cannot be asked.
    pub async fn deliver_answer(
        &self,
        session: &Session,
        id: &RequestId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        let Ok(id) = serde_json::from_str::<String>(id.as_raw().get()) else {
            return Ok(());
        };
        let Some((call, question)) = id.split_once('.') else {
            return Ok(());
        };
        let address = mailbox_address(&session.key, call);
        let letter = Letter::Answered {
            key: question.to_owned(),
            answer,
        };
        if self.mailboxes.send(&address, letter).await? == Delivery::NobodyThere {
            tracing::debug!("an answer came that nobody waits for");
        }
        Ok(())
    }
}
