//! Multi round-trip requests: a result that asks for input, the retry that
//! brings it, and the digest that ties the two together.

use sha2::{Digest, Sha256};

use super::{
    Raw,
    error::{RpcError, URL_ELICITATION_REQUIRED},
    json::{self, RawObject, Unreadable},
    method,
};

/// Most questions in one round, and most answers.
pub const MAX_QUESTIONS: usize = 256;

const INPUT_REQUIRED: &str = "input_required";
const INPUT_REQUESTS: &str = "inputRequests";
const INPUT_RESPONSES: &str = "inputResponses";
const REQUEST_STATE: &str = "requestState";

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
    /// When it does, but not as the protocol has it, or asks more than
    /// [`MAX_QUESTIONS`].
    pub fn parse(result: &Raw) -> Result<Option<Self>, MalformedInputRequired> {
        let kind = match json::members(result, ["resultType"]) {
            Ok([kind]) => kind.and_then(json::as_str),
            // Said twice, it is what whoever reads it makes of it.
            Err(Unreadable::Repeated(_)) => return Err(MalformedInputRequired),
            Err(Unreadable::NotAnObject) => None,
        };
        if kind.is_none_or(|kind| kind != INPUT_REQUIRED) {
            return Ok(None);
        }
        let [requests, state] = json::members(result, [INPUT_REQUESTS, REQUEST_STATE])
            .map_err(|_| MalformedInputRequired)?
            .map(|value| value.filter(|raw| !json::is_null(raw)));
        let questions = requests.map(questions).transpose()?;
        if state.is_some_and(|state| json::as_str(state).is_none()) {
            return Err(MalformedInputRequired);
        }
        let questions = questions.unwrap_or_default();
        if questions.is_empty() && state.is_none() {
            return Err(MalformedInputRequired);
        }
        Ok(Some(Self {
            questions,
            state: state.map(ToOwned::to_owned),
        }))
    }

    /// The questions in the data of a 2025-11-25 `-32042` error: URLs to visit
    /// before the call is repeated. They keep their `elicitationId`, which
    /// [`question_for_modern`](super::shape::question_for_modern) removes.
    /// `None` for other errors.
    #[must_use]
    pub fn from_url_error(error: &Raw) -> Option<Self> {
        let error =
            RpcError::parse(error).filter(|error| error.code == URL_ELICITATION_REQUIRED)?;
        let data = error.data?;
        let elicitations = json::elements(json::member(&data, "elicitations")?).ok()?;
        if elicitations.len() > MAX_QUESTIONS {
            return None;
        }
        let question = |(at, params): (usize, &Raw)| {
            let mut params = RawObject::parse(params).ok()?;
            params.get_str("url")?;
            params.set("mode", json::raw_str("url"));
            Some(Question {
                key: format!("url-{}", at + 1),
                method: method::ELICITATION_CREATE.to_owned(),
                params: Some(params.to_raw()),
            })
        };
        let questions: Option<Vec<_>> =
            elicitations.into_iter().enumerate().map(question).collect();
        questions
            .filter(|questions| !questions.is_empty())
            .map(|questions| Self {
                questions,
                state: None,
            })
    }

    /// The result.
    #[must_use]
    pub fn to_raw(&self) -> Box<Raw> {
        let mut result = RawObject::new();
        result.set("resultType", json::raw_str(INPUT_REQUIRED));
        if !self.questions.is_empty() {
            let mut requests = RawObject::new();
            for question in &self.questions {
                let mut request = RawObject::new();
                request.set("method", json::raw_str(&question.method));
                if let Some(params) = &question.params {
                    request.set("params", &**params);
                }
                requests.push(&*question.key, request.to_raw());
            }
            result.set(INPUT_REQUESTS, requests.to_raw());
        }
        if let Some(state) = &self.state {
            result.set(REQUEST_STATE, &**state);
        }
        result.to_raw()
    }
}

fn questions(requests: &Raw) -> Result<Vec<Question>, MalformedInputRequired> {
    let requests = RawObject::parse(requests).map_err(|_| MalformedInputRequired)?;
    if requests.len() > MAX_QUESTIONS || requests.repeated_name().is_some() {
        return Err(MalformedInputRequired);
    }
    let question = |(key, request): (&str, &Raw)| {
        let [method, params] = json::members(request, ["method", "params"])
            .map_err(|_: Unreadable| MalformedInputRequired)?;
        let params = params.filter(|params| !json::is_null(params));
        if params.is_some_and(|params| !json::is_object(params)) {
            return Err(MalformedInputRequired);
        }
        Ok(Question {
            key: key.to_owned(),
            method: method
                .and_then(json::as_str)
                .ok_or(MalformedInputRequired)?
                .into_owned(),
            params: params.map(ToOwned::to_owned),
        })
    };
    requests.iter().map(question).collect()
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
    ///
    /// # Errors
    /// `-32602` when one has a wrong type or an answer is repeated.
    pub fn from_params(params: Option<&Raw>) -> Result<Option<Self>, RpcError> {
        let Some(params) = params else {
            return Ok(None);
        };
        let [responses, state] = json::members(params, [INPUT_RESPONSES, REQUEST_STATE])
            .map_err(|error| RpcError::invalid_params(error.to_string()))?
            .map(|value| value.filter(|raw| !json::is_null(raw)));
        if responses.is_none() && state.is_none() {
            return Ok(None);
        }
        let wrong = |what: &str| RpcError::invalid_params(format!("params.{what}"));
        let responses = responses
            .map(|responses| {
                RawObject::parse(responses)
                    .ok()
                    .filter(|all| all.len() <= MAX_QUESTIONS && all.repeated_name().is_none())
                    .ok_or_else(|| wrong("inputResponses must be an object of at most 256 members, none repeated"))
            })
            .transpose()?
            .unwrap_or_default();
        let state = state
            .map(|state| json::as_str(state).ok_or_else(|| wrong("requestState must be a string")))
            .transpose()?;
        Ok(Some(Self {
            responses: responses
                .iter()
                .map(|(key, answer)| (key.to_owned(), answer.to_owned()))
                .collect(),
            state: state.map(|state| state.into_owned()),
        }))
    }

    /// The answer to the question of that key.
    #[must_use]
    pub fn response(&self, key: &str) -> Option<&Raw> {
        let found = self.responses.iter().find(|(other, _)| other == key);
        found.map(|(_, answer)| &**answer)
    }
}

/// The parameters without `inputResponses` and `requestState`.
#[must_use]
pub fn without_retry(params: Option<&Raw>) -> Option<Box<Raw>> {
    let mut object = RawObject::parse(params?).unwrap_or_default();
    object.remove(INPUT_RESPONSES);
    object.remove(REQUEST_STATE);
    Some(object.to_raw())
}

/// The parameters of a retry: the original ones, the answers (absent if there
/// were no questions), the state exactly as it was given (absent if none was).
/// The keys must not repeat.
#[must_use]
pub fn with_retry<'r>(
    params: Option<&Raw>,
    responses: impl IntoIterator<Item = (&'r str, &'r Raw)>,
    state: Option<&Raw>,
) -> Box<Raw> {
    let mut answers = RawObject::new();
    for (key, answer) in responses {
        answers.push(key, answer);
    }
    let mut object = RawObject::parse(params.unwrap_or(Raw::null())).unwrap_or_default();
    if answers.is_empty() {
        object.remove(INPUT_RESPONSES);
    } else {
        object.set(INPUT_RESPONSES, answers.to_raw());
    }
    match state {
        Some(state) => object.set(REQUEST_STATE, state.to_owned()),
        None => drop(object.remove(REQUEST_STATE)),
    }
    object.to_raw()
}

/// What a retry must have in common with the first request: the method and the
/// parameters without `_meta`, `inputResponses` and `requestState`.
#[must_use]
pub fn params_digest(method: &str, params: Option<&Raw>) -> [u8; 32] {
    let mut object = RawObject::parse(params.unwrap_or(Raw::null())).unwrap_or_default();
    object.retain(|name, _| !matches!(name, "_meta" | INPUT_RESPONSES | REQUEST_STATE));
    Sha256::new()
        .chain_update(method)
        .chain_update([0])
        .chain_update(json::canonical(&object.to_raw()))
        .finalize()
        .into()
}

#[cfg(test)]
mod tests;
