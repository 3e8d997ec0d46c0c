//! JSON-RPC messages: reading what a peer sent, writing what it is sent.
//!
//! Reading borrows: parameters, results and errors stay the bytes they came
//! as. What a message means (its era, its method) is decided elsewhere.

mod id;
mod parse;
mod write;

use std::borrow::Cow;

use super::{
    Raw,
    error::{self, RpcError},
    params::Params,
};

pub use id::{BadRequestId, MAX_ID_LEN, RequestId};
pub use parse::{ParseLimits, parse_body, parse_message};
pub(crate) use write::write_request_with;
pub use write::{error_bytes, response_bytes, write_notification, write_request, write_response};

/// A message that wants an answer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The sender's id, to be echoed.
    pub id: RequestId,
    /// What is asked.
    pub method: Cow<'a, str>,
    /// An object, when present.
    pub params: Option<&'a Raw>,
    /// What is known of them.
    pub known: Params<'a>,
}

/// A message that wants none.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// What is told.
    pub method: Cow<'a, str>,
    /// An object, when present.
    pub params: Option<&'a Raw>,
    /// The whole message as it came.
    pub raw: &'a str,
}

/// An answer to a request of ours.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    /// The request's id; `None` when the peer could not read it.
    pub id: Option<RequestId>,
    /// How it was answered.
    pub answer: AnswerRef<'a>,
}

/// One JSON-RPC message.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are requests, and none is kept"
)]
pub enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification(Notification<'a>),
    /// Is one.
    Response(Response<'a>),
}

impl<'a> Message<'a> {
    /// The method, unless it is a response.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification(notification) => Some(&notification.method),
            Self::Response(_) => None,
        }
    }

    /// The parameters, unless it is a response.
    #[must_use]
    pub fn params(&self) -> Option<&'a Raw> {
        match self {
            Self::Request(request) => request.params,
            Self::Notification(notification) => notification.params,
            Self::Response(_) => None,
        }
    }

    /// What is known of the parameters.
    #[must_use]
    pub fn known(&self) -> Params<'a> {
        match self {
            Self::Request(request) => request.known,
            // The core protocol has none whose parameters matter.
            Self::Notification(notification) => Params::from(notification.params),
            Self::Response(_) => Params::default(),
        }
    }

    /// The id, where there is one.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Request(request) => Some(&request.id),
            Self::Notification(_) => None,
            Self::Response(response) => response.id.as_ref(),
        }
    }
}

/// The body of a POST.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are single, and none is kept"
)]
pub enum Body<'a> {
    /// One message.
    Single(Message<'a>),
    /// An array, never empty; only 2025-03-26 has them.
    Batch(Vec<Result<Message<'a>, MessageError>>),
}

impl Body<'_> {
    /// The id to answer with; `None` where there is none, or many.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Single(Message::Request(request)) => Some(&request.id),
            Self::Single(Message::Notification(_) | Message::Response(_)) | Self::Batch(_) => None,
        }
    }
}

/// How a request was answered, borrowed from the message.
#[derive(Debug, Clone, Copy)]
pub enum AnswerRef<'a> {
    /// The `result` member.
    Result(&'a Raw),
    /// The `error` member.
    Error(&'a Raw),
}

impl AnswerRef<'_> {
    /// A copy of its own.
    #[must_use]
    pub fn to_answer(&self) -> Answer {
        match *self {
            Self::Result(raw) => Answer::Result(raw.to_owned()),
            Self::Error(raw) => Answer::Error(raw.to_owned()),
        }
    }
}

/// How a request was answered: the member exactly as written.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The `result` member.
    Result(Box<Raw>),
    /// The `error` member.
    Error(Box<Raw>),
}

impl Answer {
    /// An error of ours.
    #[must_use]
    pub fn error(error: &RpcError) -> Self {
        Self::Error(error.to_raw())
    }

    /// Whether it is an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The code, if it is an error that has one.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        match self {
            Self::Result(_) => None,
            Self::Error(raw) => RpcError::parse(raw).map(|error| error.code),
        }
    }
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageErrorKind {
    /// It is not JSON, or not UTF-8.
    NotJson,
    /// It is JSON but not a JSON-RPC message.
    NotAMessage,
    /// It is nested too deeply.
    TooDeep,
    /// It is an array without messages.
    EmptyBatch,
    /// It is an array of too many messages.
    BatchTooLong,
}

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MessageError {
    /// What is wrong.
    pub kind: MessageErrorKind,
    /// The request's id, when it could be read.
    pub id: Option<RequestId>,
    /// For people.
    pub message: Cow<'static, str>,
}

impl MessageError {
    fn new(kind: MessageErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            id: None,
            message: message.into(),
        }
    }

    /// The code that answers it.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self.kind {
            MessageErrorKind::NotJson => error::PARSE_ERROR,
            MessageErrorKind::NotAMessage
            | MessageErrorKind::TooDeep
            | MessageErrorKind::EmptyBatch
            | MessageErrorKind::BatchTooLong => error::INVALID_REQUEST,
        }
    }

    /// The error that answers it.
    #[must_use]
    pub fn to_rpc(&self) -> RpcError {
        RpcError::new(self.code(), self.message.as_ref())
    }
}

#[cfg(test)]
mod tests;
