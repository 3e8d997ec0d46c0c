//! The sealed state that ties a modern client's answers to its call.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{Principal, ServerId, hex},
    mcp::{
        Raw,
        error::RpcError,
        json::raw_str,
        mrtr,
        seal::{Purpose, Sealer},
    },
};

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
        let refused =
            || RpcError::invalid_params("requestState is not one that this server gave to you");
        let bytes = sealer
            .open(Purpose::RequestState, principal, state)
            .map_err(|_| refused())?;
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

/// What makes a retry the same call: server, method and parameters.
pub(crate) fn digest(server: &ServerId, method: &str, params: Option<&Raw>) -> String {
    let mut hash = Sha256::new();
    hash.update(server.as_str());
    hash.update(mrtr::params_digest(method, params));
    hex(&hash.finalize()[..16])
}
