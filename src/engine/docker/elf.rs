//! What kind of program a file is: only a static one for the engine's
//! processor runs in every image.

use std::{io, path::Path};

/// A program of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Whether it needs nothing beside itself: no loader, no libraries.
    pub is_static: bool,
    /// Its processor as images name it (`amd64`, `arm64`), when it is one of these.
    pub architecture: Option<&'static str>,
}

/// Looks at a file.
///
/// # Errors
/// When it cannot be read, or is no program.
pub fn inspect_program(path: &Path) -> io::Result<Program> {
    program(&std::fs::read(path)?).ok_or_else(|| {
        let message = "is no 64-bit Linux program";
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// Header fields of ELF64, little-endian: the two processors there are images for.
pub(super) fn program(bytes: &[u8]) -> Option<Program> {
    const PT_INTERP: u32 = 3;
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let size = usize::from(half(bytes, 54)?);
    let count = usize::from(half(bytes, 56)?);
    let kinds: Option<Vec<u32>> = (0..count)
        .map(|index| {
            let at = table.checked_add(index.checked_mul(size)?)?;
            let field = bytes.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(field.try_into().ok()?))
        })
        .collect();
    Some(Program {
        is_static: !kinds?.contains(&PT_INTERP),
        architecture: match half(bytes, 18)? {
            62 => Some("amd64"),
            183 => Some("arm64"),
            _ => None,
        },
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This test is one of the former kind.
        let own = std::env::current_exe().expect("a program");
        let program = inspect_program(&own).expect("a program");
        assert!(!program.is_static);
        assert!(program.architecture.is_some());
    }

    #[test]
    fn what_is_no_program_is_not_taken_for_one() {
        assert_eq!(program(b""), None);
        assert_eq!(program(b"#!/bin/sh\n"), None);
        assert_eq!(program(b"\x7fELF\x02\x01"), None);
        let mut cut = b"\x7fELF\x02\x01".to_vec();
        cut.resize(64, 0xff);
        assert_eq!(program(&cut), None);
    }
}
