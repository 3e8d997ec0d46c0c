//! Questions a server asks in the middle of a call, in the terms of either
//! era, and the sealed state that ties a modern client's answer to its call.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{Principal, ServerId, hex},
    mcp::{
        Raw,
        error::RpcError,
        json::{RawObject, raw_str},
        seal::{Purpose, Sealer},
    },
};

/// The members of `params` that belong to a round of questions, not to the call.
const ROUND_MEMBERS: [&str; 3] = ["inputResponses", "requestState", "_meta"];

/// What a `requestState` of ours says. Bound to the principal by its seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// A node holds the call open at a legacy server.
    Parked {
        /// The mailbox of the holder.
        mailbox: String,
        /// The round of questions this state belongs to; good once.
        round: u32,
        /// [`digest`] of the call.
        digest: String,
    },
    /// The server asked the client to visit a URL and wants the call again.
    SendAgain {
        /// [`digest`] of the call.
        digest: String,
    },
}

impl State {
    pub(crate) fn seal(&self, sealer: &Sealer, principal: &Principal) -> Box<Raw> {
        // Plain data always encodes; an empty state would not open again.
        let bytes = rmp_serde::to_vec(self).unwrap_or_default();
        raw_str(&sealer.seal(Purpose::RequestState, principal, &bytes))
    }

    /// Opens a state that a client sent back with this call.
    pub(crate) fn open(
        state: &str,
        sealer: &Sealer,
        principal: &Principal,
        call_digest: &str,
    ) -> Result<Self, RpcError> {
        let refused = || RpcError::invalid_params("requestState is not one that this server gave to you");
        let bytes = sealer.open(Purpose::RequestState, principal, state).map_err(|_| refused())?;
        let state: Self = rmp_serde::from_slice(&bytes).map_err(|_| refused())?;
        let (Self::Parked { digest, .. } | Self::SendAgain { digest }) = &state;
        if digest != call_digest {
            return Err(RpcError::invalid_params(
                "requestState belongs to another call: repeat method and parameters unchanged",
            ));
        }
        Ok(state)
    }
}

/// What makes a retry the same call: server, method and parameters, whatever
/// their order and spacing.
pub(crate) fn digest(server: &ServerId, method: &str, params: Option<&Raw>) -> String {
    let mut call: serde_json::Value =
        params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default();
    if let Some(members) = call.as_object_mut() {
        for member in ROUND_MEMBERS {
            members.remove(member);
        }
    }
    // serde_json keeps the members of a Value sorted by name.
    hex(&Sha256::digest(format!("{server}\n{method}\n{call}"))[..16])
}

/// The round's answers and state in a modern client's parameters.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// The answers by question.
    pub(crate) answers: Vec<(String, Box<Raw>)>,
    /// The state, as text.
    pub(crate) state: Option<String>,
}

impl Retry {
    /// `None` when the parameters are those of a first request.
    pub(crate) fn of(params: Option<&Raw>) -> Result<Option<Self>, RpcError> {
        let Some(object) = params.and_then(|params| RawObject::parse(params).ok()) else { return Ok(None) };
        if object.get("inputResponses").is_none() && object.get("requestState").is_none() {
            return Ok(None);
        }
        let state = match object.get("requestState") {
            Some(_) => Some(
                object
                    .get_str("requestState")
                    .ok_or_else(|| RpcError::invalid_params("requestState has to be a string"))?
                    .into_owned(),
            ),
            None => None,
        };
        let answers = match object.get("inputResponses") {
            Some(responses) => RawObject::parse(responses)
                .map_err(|_| RpcError::invalid_params("inputResponses has to be an object"))?
                .iter()
                .map(|(key, answer)| (key.to_owned(), answer.to_owned()))
                .collect(),
            None => Vec::new(),
        };
        Ok(Some(Self { answers, state }))
    }
}

/// The parameters of the call itself, without the round's members.
pub(crate) fn without_round(params: &Raw) -> Box<Raw> {
    match RawObject::parse(params) {
        Ok(mut object) => {
            object.remove("inputResponses");
            object.remove("requestState");
            object.to_raw()
        }
        Err(_) => params.to_owned(),
    }
}

/// The parameters of the next round: the call's own, the answers, and the
/// server's state byte for byte, absent when it gave none.
pub(crate) fn with_answers(params: Option<&Raw>, answers: &Raw, state: Option<&Raw>) -> Box<Raw> {
    let mut object = params.and_then(|params| RawObject::parse(params).ok()).unwrap_or_else(RawObject::new);
    object.remove("requestState");
    object.set("inputResponses", answers.to_owned());
    if let Some(state) = state {
        object.set("requestState", state.to_owned());
    }
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<Raw> {
        Raw::from_string(json.to_owned()).expect("test JSON")
    }

    #[test]
    fn the_digest_is_of_the_call_not_of_the_round() {
        let server = ServerId::try_from("demo").expect("good name");
        let first = digest(&server, "tools/call", Some(&raw(r#"{"name":"a","arguments":{"x":1,"y":2},"_meta":{}}"#)));
        let again = raw(r#"{"arguments": {"y":2, "x":1}, "name":"a", "requestState":"s", "inputResponses":{}}"#);
        assert_eq!(first, digest(&server, "tools/call", Some(&again)));
        let other = raw(r#"{"name":"a","arguments":{"x":1,"y":3}}"#);
        assert_ne!(first, digest(&server, "tools/call", Some(&other)));
        assert_ne!(first, digest(&server, "prompts/get", Some(&again)));
    }

    #[test]
    fn the_next_round_carries_the_servers_state_exactly() {
        let params = raw(r#"{"name":"a","big":12345678901234567890123}"#);
        let next = with_answers(Some(&params), &raw(r#"{"q":{"action":"accept"}}"#), Some(&raw(r#""\u0041b""#)));
        assert_eq!(
            next.get(),
            r#"{"name":"a","big":12345678901234567890123,"inputResponses":{"q":{"action":"accept"}},"requestState":"\u0041b"}"#
        );
        assert_eq!(without_round(&next).get(), params.get());
    }
}
