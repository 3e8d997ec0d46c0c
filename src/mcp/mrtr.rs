//! Multi round-trip requests: a result that asks for input, the retry that
//! brings it, and the digest that ties the two together.

use super::Raw;

/// One thing a server wants to know.
#[derive(Debug, Clone)]
pub struct Question {
    /// The server's name for it, which the answer repeats.
    pub key: String,
    /// `elicitation/create`, `sampling/createMessage`, `roots/list`.
    pub method: String,
    /// Its parameters.
    pub params: Option<Box<Raw>>,
}

/// A result of type `input_required`.
#[derive(Debug, Clone)]
pub struct InputRequired {
    /// In the server's order; empty: retry at once.
    pub questions: Vec<Question>,
    /// `requestState`, a JSON string to be returned byte for byte.
    pub state: Option<Box<Raw>>,
}

/// A result claims to ask for input but cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("input_required without readable inputRequests or requestState")]
pub struct MalformedInputRequired;

impl InputRequired {
    /// Reads a result. `None` when it does not ask for input.
    ///
    /// # Errors
    /// When it does, but not as the protocol has it.
    pub fn parse(result: &Raw) -> Result<Option<Self>, MalformedInputRequired> {
        let _ = result;
        todo!()
    }

    /// The questions in the data of a 2025-11-25 `-32042` error: URLs to visit
    /// before the call is repeated. `None` for other errors.
    #[must_use]
    pub fn from_url_error(error: &Raw) -> Option<Self> {
        let _ = error;
        todo!()
    }

    /// The result.
    #[must_use]
    pub fn to_raw(&self) -> Box<Raw> {
        todo!()
    }
}

/// What a retry brings along.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    /// Answers by the question's key.
    pub responses: Vec<(String, Box<Raw>)>,
    /// `requestState` as the client returned it.
    pub state: Option<String>,
}

impl Retry {
    /// Reads `inputResponses` and `requestState`. `None` when neither is there.
    #[must_use]
    pub fn from_params(params: Option<&Raw>) -> Option<Self> {
        let _ = params;
        todo!()
    }
}

/// The parameters without `inputResponses` and `requestState`.
#[must_use]
pub fn without_retry(params: Option<&Raw>) -> Option<Box<Raw>> {
    let _ = params;
    todo!()
}

/// The parameters of a retry: the original ones, the answers, the state exactly
/// as it was given (absent if none was).
#[must_use]
pub fn with_retry<'r>(
    params: Option<&Raw>,
    responses: impl IntoIterator<Item = (&'r str, &'r Raw)>,
    state: Option<&Raw>,
) -> Box<Raw> {
    let _ = (params, responses.into_iter(), state);
    todo!()
}

/// What a retry must have in common with the first request: the method and the
/// parameters without `_meta`, `inputResponses` and `requestState`.
#[must_use]
pub fn params_digest(method: &str, params: Option<&Raw>) -> [u8; 32] {
    let _ = (method, params);
    todo!()
}
