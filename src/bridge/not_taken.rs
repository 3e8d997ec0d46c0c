//! How a bridge says that it has not given a request to the server: it
//! certainly did not run, and nodes may send it again whatever it does. Only a
//! bridge is believed, which means a replica that is dialled with a token.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Part of every 503 of a bridge's own.
pub const NOT_TAKEN: HeaderName = HeaderName::from_static("x-mcp-fleet-not-taken");

/// Why a bridge did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are too many already.
    Busy,
    /// The server's process has ended, too often to be started again at once.
    Down,
    /// The bridge is ending.
    Stopping,
}

/// A request was not given to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken {
    /// Why.
    pub reason: Reason,
    /// When that may be over.
    pub after: Duration,
}

impl NotTaken {
    /// What a response says, if it says so.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (word, after_ms) = headers.get(&NOT_TAKEN)?.to_str().ok()?.split_once(' ')?;
        let reason = match word {
            "busy" => Reason::Busy,
            "down" => Reason::Down,
            "stopping" => Reason::Stopping,
            _ => return None,
        };
        let after = Duration::from_millis(after_ms.parse().ok()?);
        Some(Self { reason, after })
    }

    /// The value of [`NOT_TAKEN`].
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let word = match self.reason {
            Reason::Busy => "busy",
            Reason::Down => "down",
            Reason::Stopping => "stopping",
        };
        HeaderValue::from_str(&format!("{word} {}", self.after.as_millis())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bridge_says_is_what_a_node_reads() {
        for reason in [Reason::Busy, Reason::Down, Reason::Stopping] {
            let after = Duration::from_millis(2350);
            let said = NotTaken { reason, after };
            let headers: HeaderMap = [(NOT_TAKEN, said.header().unwrap())].into_iter().collect();
            assert_eq!(NotTaken::of(&headers), Some(said));
        }
        for other in ["", "down", "down x", "gone 5", "down -1"] {
            let value = HeaderValue::from_static(other);
            let headers: HeaderMap = [(NOT_TAKEN, value)].into_iter().collect();
            assert_eq!(NotTaken::of(&headers), None, "{other:?}");
        }
        assert_eq!(NotTaken::of(&HeaderMap::new()), None);
    }
}
