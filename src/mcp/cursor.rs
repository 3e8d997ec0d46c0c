//! List cursors: positions that any node can continue from.

use crate::ids::{Principal, ServerId};

use super::{
    method::ListKind,
    seal::{Purpose, Sealer},
};

const FORMAT: u8 = 1;

/// A position in one generation of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which list.
    pub kind: ListKind,
    /// Whose list; `None`: the merged one.
    pub server: Option<ServerId>,
    /// Items already served.
    pub offset: u64,
    /// The generation they were served from.
    pub generation: u64,
}

/// Not a cursor of this list for this caller: `-32602`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor does not belong to this list or this caller; list again without one")]
pub struct BadCursor;

impl Cursor {
    /// The cursor as the client gets it.
    #[must_use]
    pub fn seal(&self, sealer: &Sealer, principal: &Principal) -> String {
        let mut plain = vec![FORMAT, code(self.kind)];
        plain.extend_from_slice(&self.offset.to_be_bytes());
        plain.extend_from_slice(&self.generation.to_be_bytes());
        if let Some(server) = &self.server {
            plain.extend_from_slice(server.as_str().as_bytes());
        }
        sealer.seal(Purpose::Cursor, principal, &plain)
    }

    /// Reads a cursor of the list of `kind` at `server`. The caller compares the generation.
    ///
    /// # Errors
    /// When it is forged, or belongs to another list or principal.
    pub fn open(
        text: &str,
        kind: ListKind,
        server: Option<&ServerId>,
        sealer: &Sealer,
        principal: &Principal,
    ) -> Result<Self, BadCursor> {
        let plain = sealer
            .open(Purpose::Cursor, principal, text)
            .map_err(|_| BadCursor)?;
        let rest = plain.strip_prefix(&[FORMAT, code(kind)]).ok_or(BadCursor)?;
        let (offset, rest) = rest.split_first_chunk().ok_or(BadCursor)?;
        let (generation, of) = rest.split_first_chunk().ok_or(BadCursor)?;
        if of != server.map_or("", ServerId::as_str).as_bytes() {
            return Err(BadCursor);
        }
        Ok(Self {
            kind,
            server: server.cloned(),
            offset: u64::from_be_bytes(*offset),
            generation: u64::from_be_bytes(*generation),
        })
    }
}

/// Never reuse a number: cursors outlive a rollout.
fn code(kind: ListKind) -> u8 {
    match kind {
        ListKind::Tools => 1,
        ListKind::Prompts => 2,
        ListKind::Resources => 3,
        ListKind::ResourceTemplates => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    const ME: Principal = Principal::ANONYMOUS;

    fn server(name: &str) -> ServerId {
        ServerId::try_from(name).expect("name")
    }

    #[test]
    fn a_cursor_is_good_for_its_list_and_caller_only() {
        let sealer = Sealer::new(&[1; 32]);
        let cursor = Cursor {
            kind: ListKind::Tools,
            server: Some(server("demo")),
            offset: 100,
            generation: 7,
        };
        let text = cursor.seal(&sealer, &ME);
        let open = |kind, server: Option<&ServerId>, principal: &Principal| {
            Cursor::open(&text, kind, server, &sealer, principal)
        };
        let demo = server("demo");
        assert_eq!(open(ListKind::Tools, Some(&demo), &ME), Ok(cursor.clone()));
        assert_eq!(open(ListKind::Prompts, Some(&demo), &ME), Err(BadCursor));
        assert_eq!(
            open(ListKind::Tools, Some(&server("demo2")), &ME),
            Err(BadCursor)
        );
        assert_eq!(open(ListKind::Tools, None, &ME), Err(BadCursor));
        let other = Principal::from_credential(b"x");
        assert_eq!(open(ListKind::Tools, Some(&demo), &other), Err(BadCursor));
        for text in ["", "page-2", "AAAA"] {
            assert_eq!(
                Cursor::open(text, ListKind::Tools, None, &sealer, &ME),
                Err(BadCursor)
            );
        }
    }

    #[test]
    fn a_session_is_no_cursor() {
        let sealer = Sealer::new(&[1; 32]);
        let text = sealer.seal(Purpose::Session, &ME, &[FORMAT, 1]);
        assert!(Cursor::open(&text, ListKind::Tools, None, &sealer, &ME).is_err());
        let short = sealer.seal(Purpose::Cursor, &ME, &[FORMAT, 1, 0]);
        assert!(Cursor::open(&short, ListKind::Tools, None, &sealer, &ME).is_err());
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back(
            kind in select(&ListKind::ALL[..]),
            name in prop::option::of("[a-z][a-z0-9-]{0,31}"),
            offset: u64,
            generation: u64,
        ) {
            let sealer = Sealer::new(&[1; 32]);
            let cursor = Cursor { kind, server: name.as_deref().map(server), offset, generation };
            let text = cursor.seal(&sealer, &ME);
            let read = Cursor::open(&text, kind, cursor.server.as_ref(), &sealer, &ME);
            prop_assert_eq!(read, Ok(cursor));
        }
    }
}
