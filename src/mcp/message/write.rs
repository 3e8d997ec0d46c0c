//! Writing messages around parameters and answers that stay as they are.

use bytes::Bytes;

use crate::mcp::{Raw, error::RpcError, json};

use super::{Answer, RequestId};

/// Appends a request.
pub fn write_request(out: &mut Vec<u8>, id: &RequestId, method: &str, params: Option<&Raw>) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_raw().get().as_bytes());
    out.extend_from_slice(br#","method":"#);
    write_method_and_params(out, method, params);
}

/// Appends a request whose parameters `params` writes.
pub(crate) fn write_request_with(
    out: &mut Vec<u8>,
    id: &RequestId,
    method: &str,
    params: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_raw().get().as_bytes());
    out.extend_from_slice(br#","method":"#);
    json::write_str(out, method);
    out.extend_from_slice(br#","params":"#);
    params(out);
    out.push(b'}');
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
