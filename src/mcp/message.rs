//! JSON-RPC messages: reading what a peer sent, writing what it is sent.
//!
//! Reading borrows: parameters, results and errors stay the bytes they came
//! as. What a message means (its era, its method) is decided elsewhere.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{self, IgnoredAny, MapAccess, Visitor},
};

use super::{
    Raw,
    error::{self, RpcError},
    json,
};

/// Longest request id, in bytes as written; ids are kept in maps and in the store.
pub const MAX_ID_LEN: usize = 1024;

/// A request id, a JSON string or integer, kept as written: `1` is not `"1"`.
/// Two spellings of the same string (escapes) are the same id.
#[derive(Clone)]
pub struct RequestId(Box<Raw>);

impl RequestId {
    /// An id of our own.
    #[must_use]
    pub fn new_number(number: u64) -> Self {
        Self(json::raw(&number))
    }

    /// An id of our own.
    #[must_use]
    pub fn new_string(text: &str) -> Self {
        Self(json::raw_str(text))
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When it is neither a string nor an integer, or longer than [`MAX_ID_LEN`].
    pub fn parse(raw: &Raw) -> Result<Self, BadRequestId> {
        let text = raw.get();
        if text.len() > MAX_ID_LEN {
            return Err(BadRequestId::TooLong);
        }
        let valid = match text.as_bytes()[0] {
            b'"' => json::as_str(raw).is_some(),
            b'-' | b'0'..=b'9' => is_integer(text),
            _ => false,
        };
        if valid {
            Ok(Self(raw.to_owned()))
        } else {
            Err(BadRequestId::WrongType)
        }
    }

    /// The id as JSON, as it was written.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.0
    }

    /// The id as a number, for ids made by [`Self::new_number`].
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        self.0.get().parse().ok()
    }

    /// What makes two ids the same: the text without escapes, in quotes, or the digits.
    fn key(&self) -> Cow<'_, str> {
        let text = self.0.get();
        if text.starts_with('"') {
            if memchr::memchr(b'\\', text.as_bytes()).is_none() {
                return Cow::Borrowed(text);
            }
            let decoded = json::as_str(&self.0).unwrap_or_default();
            return Cow::Owned(format!("\"{decoded}\""));
        }
        Cow::Borrowed(text.split_once('.').map_or(text, |(digits, _zeros)| digits))
    }
}

/// Digits, with at most a fraction of zeros.
fn is_integer(number: &str) -> bool {
    let (digits, fraction) = number.split_once('.').unwrap_or((number, "0"));
    !digits.contains(['e', 'E']) && fraction.bytes().all(|digit| digit == b'0')
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get() || self.key() == other.key()
    }
}

impl Eq for RequestId {}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

/// Why a value is not a [`RequestId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequestId {
    /// Null, a fraction, an object.
    #[error("id must be a string or an integer")]
    WrongType,
    /// Longer than [`MAX_ID_LEN`].
    #[error("id is longer than {MAX_ID_LEN} bytes")]
    TooLong,
}

/// A message that wants an answer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The sender's id, to be echoed.
    pub id: RequestId,
    /// What is asked.
    pub method: Cow<'a, str>,
    /// An object, when present.
    pub params: Option<&'a Raw>,
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
pub enum Body<'a> {
    /// One message.
    Single(Message<'a>),
    /// An array, never empty; only 2025-03-26 has them.
    Batch(Vec<Result<Message<'a>, MessageError>>),
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

/// Bounds of what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    /// Deepest nesting of arrays and objects.
    pub max_depth: u32,
    /// Most messages in an array.
    pub max_batch: usize,
}

/// Reads the body of a POST.
///
/// # Errors
/// When it is not JSON, exceeds a limit, or is a single value that is not a
/// message. Bad messages inside an array are reported in their places.
pub fn parse_body<'a>(body: &'a [u8], limits: &ParseLimits) -> Result<Body<'a>, MessageError> {
    let text = as_text(body)?;
    if !json::depth_within(body, limits.max_depth) {
        return Err(MessageError::new(
            MessageErrorKind::TooDeep,
            format!("nested deeper than {} levels", limits.max_depth),
        ));
    }
    if !text.starts_with('[') {
        return parse_text(text).map(Body::Single);
    }
    match json::elements_within(text, limits.max_batch) {
        Err(error) => Err(not_json(&error)),
        Ok(None) => Err(MessageError::new(
            MessageErrorKind::BatchTooLong,
            format!("a batch may have at most {} messages", limits.max_batch),
        )),
        Ok(Some(items)) if items.is_empty() => Err(MessageError::new(
            MessageErrorKind::EmptyBatch,
            "the batch is empty",
        )),
        Ok(Some(items)) => Ok(Body::Batch(
            items.into_iter().map(|raw| parse_text(raw.get())).collect(),
        )),
    }
}

/// Reads one message, e.g. of an event stream.
///
/// # Errors
/// When it is not JSON or not a message; arrays are not messages.
pub fn parse_message(message: &[u8]) -> Result<Message<'_>, MessageError> {
    parse_text(as_text(message)?)
}

/// The body without surrounding white space.
fn as_text(body: &[u8]) -> Result<&str, MessageError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| MessageError::new(MessageErrorKind::NotJson, "the body is not UTF-8"))?;
    Ok(text.trim_matches([' ', '\t', '\r', '\n']))
}

fn not_json(error: &serde_json::Error) -> MessageError {
    MessageError::new(
        MessageErrorKind::NotJson,
        format!("the body is not JSON: {error}"),
    )
}

fn parse_text(text: &str) -> Result<Message<'_>, MessageError> {
    if !text.starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| not_json(&error))?;
        return Err(MessageError::new(
            MessageErrorKind::NotAMessage,
            "a message is a JSON object",
        ));
    }
    serde_json::from_str::<Members<'_>>(text)
        .map_err(|error| not_json(&error))?
        .into_message(text)
}

/// The members of a message that have a meaning.
#[derive(Default)]
struct Members<'a> {
    values: [Option<&'a Raw>; 6],
    repeated: Option<Name>,
}

#[derive(Clone, Copy)]
enum Name {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
}

const NAMES: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(KnownName(name)) = map.next_key()? {
                    let Some(name) = name else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value = map.next_value()?;
                    if members.values[name as usize].replace(value).is_some() {
                        members.repeated = Some(name);
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(All)
    }
}

struct KnownName(Option<Name>);

impl<'de> Deserialize<'de> for KnownName {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AName;
        impl Visitor<'_> for AName {
            type Value = KnownName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(KnownName(match name {
                    "jsonrpc" => Some(Name::Jsonrpc),
                    "id" => Some(Name::Id),
                    "method" => Some(Name::Method),
                    "params" => Some(Name::Params),
                    "result" => Some(Name::Result),
                    "error" => Some(Name::Error),
                    _ => None,
                }))
            }
        }
        deserializer.deserialize_str(AName)
    }
}

impl<'a> Members<'a> {
    /// The value, where `null` is as good as absent.
    fn get(&self, name: Name) -> Option<&'a Raw> {
        self.values[name as usize].filter(|raw| !json::is_null(raw))
    }

    fn into_message(self, raw: &'a str) -> Result<Message<'a>, MessageError> {
        let id = self.get(Name::Id).map(RequestId::parse).transpose();
        let refuse = |message: Cow<'static, str>| MessageError {
            kind: MessageErrorKind::NotAMessage,
            // Of two ids neither is believed.
            id: match self.repeated {
                Some(Name::Id) => None,
                _ => id.clone().ok().flatten(),
            },
            message,
        };
        if let Some(name) = self.repeated {
            let name = NAMES[name as usize];
            return Err(refuse(format!("{name} occurs more than once").into()));
        }
        let id = id
            .clone()
            .map_err(|error| refuse(error.to_string().into()))?;
        let is_version_2 = self
            .get(Name::Jsonrpc)
            .and_then(json::as_str)
            .is_some_and(|version| version == "2.0");
        if !is_version_2 {
            return Err(refuse("jsonrpc must be \"2.0\"".into()));
        }
        let answer = match (self.get(Name::Result), self.get(Name::Error)) {
            (Some(_), Some(_)) => {
                return Err(refuse("result and error exclude each other".into()));
            }
            (_, Some(error)) => Some(AnswerRef::Error(error)),
            (Some(result), None) => Some(AnswerRef::Result(result)),
            // A result may be null, an error may not.
            (None, None) => self.values[Name::Result as usize].map(AnswerRef::Result),
        };
        let Some(method) = self.values[Name::Method as usize] else {
            return match answer {
                Some(answer) => Ok(Message::Response(Response { id, answer })),
                None => Err(refuse("neither method, result nor error is there".into())),
            };
        };
        if answer.is_some() {
            return Err(refuse("a request has neither result nor error".into()));
        }
        let Some(method) = json::as_str(method) else {
            return Err(refuse("method must be a string".into()));
        };
        let params = self.get(Name::Params);
        if params.is_some_and(|params| !json::is_object(params)) {
            return Err(refuse("params must be an object".into()));
        }
        match (id, self.values[Name::Id as usize]) {
            (Some(id), _) => Ok(Message::Request(Request { id, method, params })),
            (None, Some(_null)) => Err(refuse(BadRequestId::WrongType.to_string().into())),
            (None, None) => Ok(Message::Notification(Notification {
                method,
                params,
                raw,
            })),
        }
    }
}

/// Appends a request.
pub fn write_request(out: &mut Vec<u8>, id: &RequestId, method: &str, params: Option<&Raw>) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_raw().get().as_bytes());
    out.extend_from_slice(br#","method":"#);
    write_method_and_params(out, method, params);
}

/// Appends a notification.
pub fn write_notification(out: &mut Vec<u8>, method: &str, params: Option<&Raw>) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"#);
    write_method_and_params(out, method, params);
}

fn write_method_and_params(out: &mut Vec<u8>, method: &str, params: Option<&Raw>) {
    json::write_str(out, method);
    if let Some(params) = params {
        out.extend_from_slice(br#","params":"#);
        out.extend_from_slice(params.get().as_bytes());
    }
    out.push(b'}');
}

/// Appends a response.
pub fn write_response(out: &mut Vec<u8>, id: &RequestId, answer: &Answer) {
    write_answer(out, id.as_raw().get(), answer);
}

fn write_answer(out: &mut Vec<u8>, id: &str, answer: &Answer) {
    let (name, value) = match answer {
        Answer::Result(raw) => ("result", raw),
        Answer::Error(raw) => ("error", raw),
    };
    out.reserve(id.len() + value.get().len() + 36);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#",""#);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(br#"":"#);
    out.extend_from_slice(value.get().as_bytes());
    out.push(b'}');
}

/// A response.
#[must_use]
pub fn response_bytes(id: &RequestId, answer: &Answer) -> Bytes {
    let mut out = Vec::new();
    write_response(&mut out, id, answer);
    out.into()
}

/// An error response; without an id when the request's could not be read.
#[must_use]
pub fn error_bytes(id: Option<&RequestId>, error: &RpcError) -> Bytes {
    let mut out = Vec::new();
    let id = id.map_or("null", |id| id.as_raw().get());
    write_answer(&mut out, id, &Answer::error(error));
    out.into()
}

#[cfg(test)]
mod tests;
