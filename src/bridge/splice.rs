//! Reading where things stand in a message, and replacing a few of them
//! without touching any other byte.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use crate::mcp::{
    Raw, envelope, json,
    message::{BadRequestId, RequestId},
};

/// Messages up to this size are written in one piece.
const JOINED: usize = 16 * 1024;

/// One JSON-RPC message, and where in it stands what the bridge looks at.
#[derive(Debug, Deserialize)]
pub struct Parts<'a> {
    #[serde(borrow)]
    id: Option<&'a Raw>,
    #[serde(borrow)]
    method: Option<&'a Raw>,
    /// The parameters.
    #[serde(borrow)]
    pub params: Option<&'a Raw>,
    #[serde(borrow)]
    result: Option<&'a Raw>,
    /// The error of an answer.
    #[serde(borrow)]
    pub error: Option<&'a Raw>,
    #[serde(skip)]
    text: &'a str,
}

/// What kind of message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer.
    Request(RequestId, String),
    /// Wants none.
    Notification(String),
    /// Is one; its id, when it could be read.
    Answer(Option<RequestId>),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMessage {
    /// They are not JSON, or not UTF-8, or repeat a member of the envelope.
    #[error("not a JSON-RPC message: {0}")]
    NotJson(String),
    /// The id is of no permitted kind.
    #[error(transparent)]
    BadId(#[from] BadRequestId),
    /// There is neither a method nor an id.
    #[error("neither a request, a notification nor an answer")]
    Nothing,
}

impl<'a> Parts<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(message: &'a [u8]) -> Result<(Self, Kind), NoMessage> {
        let text =
            std::str::from_utf8(message).map_err(|error| NoMessage::NotJson(error.to_string()))?;
        let mut parts: Self =
            serde_json::from_str(text).map_err(|error| NoMessage::NotJson(error.to_string()))?;
        parts.text = text;
        let id = parts.id.map(RequestId::parse).transpose()?;
        let method = parts.method.and_then(json::as_str);
        let kind = match (method, id) {
            (Some(method), Some(id)) => Kind::Request(id, method.into_owned()),
            (Some(method), None) => Kind::Notification(method.into_owned()),
            (None, id) if parts.result.is_some() || parts.error.is_some() => Kind::Answer(id),
            // A result that is null.
            (None, Some(id)) if parts.method.is_none() => Kind::Answer(Some(id)),
            (None, _) => return Err(NoMessage::Nothing),
        };
        Ok((parts, kind))
    }

    /// Where the id stands.
    #[must_use]
    pub fn id(&self) -> Option<Range<usize>> {
        self.id.map(|id| self.place(id))
    }

    /// Where a part of the message stands.
    #[must_use]
    pub fn place(&self, part: &Raw) -> Range<usize> {
        // Parts are borrowed from the text, so the difference is where they begin.
        let start = part.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + part.get().len()
    }

    /// A member of the parameters.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a Raw> {
        json::member(self.params?, name)
    }

    fn meta(&self, name: &str) -> Option<&'a Raw> {
        json::member(self.param("_meta")?, name)
    }

    /// The token for progress notifications that a request asks for.
    #[must_use]
    pub fn progress_token(&self) -> Option<&'a Raw> {
        self.meta("progressToken")
    }

    /// The listen stream that a notification or its last answer belongs to.
    #[must_use]
    pub fn subscription(&self) -> Option<&'a Raw> {
        let meta = match self.result {
            Some(result) => json::member(result, "_meta")?,
            None => self.param("_meta")?,
        };
        json::member(meta, envelope::SUBSCRIPTION_ID)
    }

    /// Whether it is a request of the modern era, which names its version itself.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        let params = self.params;
        matches!(envelope::protocol_version(params), Ok(Some(version))
            if crate::mcp::version::names_modern(&version))
    }

    /// Whether the request wants log messages.
    #[must_use]
    pub fn wants_logs(&self) -> bool {
        self.meta(envelope::LOG_LEVEL).is_some()
    }

    /// The result of an answer.
    #[must_use]
    pub fn result(&self) -> Option<&'a Raw> {
        self.result
    }
}

/// A message in pieces, most of them shared with where it came from.
#[derive(Debug, Clone, Default)]
pub struct Rope(Vec<Bytes>);

impl From<Bytes> for Rope {
    fn from(whole: Bytes) -> Self {
        Self(vec![whole])
    }
}

impl From<Vec<u8>> for Rope {
    fn from(whole: Vec<u8>) -> Self {
        Self(vec![whole.into()])
    }
}

impl Rope {
    /// `message` with other text at a few places, which must not overlap.
    #[must_use]
    pub fn splice(message: &Bytes, mut edits: Vec<(Range<usize>, String)>) -> Self {
        edits.sort_by_key(|(place, _)| place.start);
        let mut pieces = Vec::with_capacity(edits.len() * 2 + 1);
        let mut at = 0;
        for (place, text) in edits {
            pieces.push(message.slice(at..place.start));
            pieces.push(text.into());
            at = place.end;
        }
        pieces.push(message.slice(at..));
        let rope = Self(pieces);
        if rope.len() <= JOINED {
            return rope.join().into();
        }
        rope
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its pieces in their order.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.0
    }

    /// In one piece.
    #[must_use]
    pub fn join(self) -> Bytes {
        if let [whole] = &self.0[..] {
            return whole.clone();
        }
        let mut all = BytesMut::with_capacity(self.len());
        for piece in self.0 {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Kind, NoMessage> {
        Parts::read(text.as_bytes()).map(|(_, kind)| kind)
    }

    #[test]
    fn messages_are_told_apart() {
        let id = || RequestId::new_number(1);
        let request = Ok(Kind::Request(id(), "m".into()));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#), request);
        let notification = Ok(Kind::Notification("m".into()));
        assert_eq!(read(r#"{"method":"m","params":{"id":1}}"#), notification);
        for answer in [
            r#"{"id":1,"result":{}}"#,
            r#"{"id":1,"result":null}"#,
            r#"{"error":{},"id":1}"#,
        ] {
            assert_eq!(read(answer), Ok(Kind::Answer(Some(id()))), "{answer}");
        }
        assert_eq!(read(r#"{"id":null,"error":{}}"#), Ok(Kind::Answer(None)));
        assert_eq!(read("{}"), Err(NoMessage::Nothing));
        assert_eq!(read(r#"{"id":1,"method":7}"#), Err(NoMessage::Nothing));
        for broken in [
            "",
            "[]",
            "{\"id\":1,\"id\":2,\"method\":\"m\"}",
            "{",
            "\u{7f}",
        ] {
            assert!(
                matches!(read(broken), Err(NoMessage::NotJson(_))),
                "{broken}"
            );
        }
        assert!(matches!(
            read(r#"{"id":{},"method":"m"}"#),
            Err(NoMessage::BadId(_))
        ));
    }

    #[test]
    fn only_what_is_replaced_changes() {
        let text = "{ \"params\":{\"n\":1.50,\"_meta\":{\"progressToken\" : \"t\"}},\"id\":  7 ,\"method\":\"m\"}";
        let message = Bytes::from_static(text.as_bytes());
        let (parts, _) = Parts::read(&message).unwrap();
        let token = parts.place(parts.progress_token().unwrap());
        let edits = vec![(parts.id().unwrap(), "\"x\"".into()), (token, "99".into())];
        let spliced = Rope::splice(&message, edits).join();
        let expected = text.replace("  7 ", "  \"x\" ").replace("\"t\"", "99");
        assert_eq!(spliced, expected);
    }

    #[test]
    fn the_subscription_is_found_in_notifications_and_results() {
        for text in [
            r#"{"method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#,
            r#"{"id":5,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#,
        ] {
            let (parts, _) = Parts::read(text.as_bytes()).unwrap();
            let found = parts.subscription().unwrap();
            assert_eq!(&text[parts.place(found)], "5");
        }
    }

    #[test]
    fn large_messages_are_not_copied() {
        let text = format!(
            r#"{{"id":1,"method":"m","params":{{"a":"{}"}}}}"#,
            "x".repeat(JOINED)
        );
        let message = Bytes::from(text.clone());
        let (parts, _) = Parts::read(&message).unwrap();
        let rope = Rope::splice(&message, vec![(parts.id().unwrap(), "12".into())]);
        let pieces = rope.clone().into_pieces();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2].as_ptr(), message[7..].as_ptr());
        assert_eq!(rope.join(), text.replacen('1', "12", 1));
    }

    proptest! {
        #[test]
        fn ids_come_back_as_they_were(id in prop_oneof!["[0-9]{1,12}", "\"[a-z\\\\n]{0,8}\""], before in "[ \t]{0,3}", value in "[a-zA-Z0-9 ]{0,50}") {
            let text = format!("{{\"a\":\"{value}\",\"id\":{before}{id}{before},\"method\":\"m\"}}");
            let message = Bytes::from(text.clone());
            if let Ok((parts, Kind::Request(..))) = Parts::read(&message) {
                let place = parts.id().unwrap();
                let original = text[place.clone()].to_owned();
                let sent = Rope::splice(&message, vec![(place, "4711".into())]).join();
                let (parts, _) = Parts::read(&sent).unwrap();
                let back = Rope::splice(&sent, vec![(parts.id().unwrap(), original)]).join();
                prop_assert_eq!(back, text);
            }
        }

        #[test]
        fn any_bytes_are_read_calmly(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            Parts::read(&bytes).ok();
        }
    }
}
