//! Reading bodies and messages, in one pass over the members.

use std::borrow::Cow;

use crate::mcp::{
    Raw,
    json::{self, Cursor, Malformed},
    params::Params,
};

use super::{
    AnswerRef, BadRequestId, Body, Message, MessageError, MessageErrorKind, Notification, Request,
    RequestId, Response,
};

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
    if text.starts_with('{') {
        return parse_text(text, limits.max_depth).map(Body::Single);
    }
    if !json::depth_within(body, limits.max_depth) {
        return Err(too_deep(limits.max_depth));
    }
    if !text.starts_with('[') {
        return parse_text(text, limits.max_depth).map(Body::Single);
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
            items
                .into_iter()
                .map(|raw| parse_text(raw.get(), limits.max_depth))
                .collect(),
        )),
    }
}

/// Reads one message, e.g. of an event stream.
///
/// # Errors
/// When it is not JSON or not a message; arrays are not messages.
pub fn parse_message(message: &[u8]) -> Result<Message<'_>, MessageError> {
    parse_text(as_text(message)?, u32::MAX)
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

fn too_deep(max_depth: u32) -> MessageError {
    MessageError::new(
        MessageErrorKind::TooDeep,
        format!("nested deeper than {max_depth} levels"),
    )
}

fn parse_text(text: &str, max_depth: u32) -> Result<Message<'_>, MessageError> {
    if !text.starts_with('{') {
        json::value(text).map_err(|error| not_json(&error))?;
        return Err(MessageError::new(
            MessageErrorKind::NotAMessage,
            "a message is a JSON object",
        ));
    }
    match Members::read(text, max_depth) {
        Ok(members) => members.into_message(text),
        Err(Malformed::TooDeep) => Err(too_deep(max_depth)),
        Err(Malformed::NotJson) => Err(not_json(&json::not_json(text))),
    }
}

/// The members of a message that have a meaning.
#[derive(Default)]
struct Members<'a> {
    values: [Option<&'a Raw>; 6],
    repeated: Option<Name>,
    params: Params<'a>,
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

impl Name {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "jsonrpc" => Self::Jsonrpc,
            "id" => Self::Id,
            "method" => Self::Method,
            "params" => Self::Params,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

impl<'a> Members<'a> {
    fn read(text: &'a str, max_depth: u32) -> Result<Self, Malformed> {
        let mut members = Members::default();
        let mut cursor = Cursor::within(text, max_depth);
        cursor.object(|cursor, name| {
            let name = Name::parse(&json::name_of(name)?);
            let value = match name {
                Some(Name::Params) if cursor.is_at_object() => {
                    let (value, params) = cursor.span(Params::walk)?;
                    members.params = params;
                    value
                }
                _ => cursor.value()?,
            };
            if let Some(name) = name
                && members.values[name as usize].replace(value).is_some()
            {
                members.repeated = Some(name);
            }
            Ok(())
        })?;
        cursor.end()?;
        Ok(members)
    }

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
            (Some(id), _) => Ok(Message::Request(Request {
                id,
                method,
                params,
                known: self.params,
            })),
            (None, Some(_null)) => Err(refuse(BadRequestId::WrongType.to_string().into())),
            (None, None) => Ok(Message::Notification(Notification {
                method,
                params,
                raw,
            })),
        }
    }
}
