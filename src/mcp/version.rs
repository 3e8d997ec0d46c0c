//! Protocol versions and the two eras they belong to.

use std::fmt;

/// A version this crate speaks, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP+SSE.
    V2024_11_05,
    /// Streamable HTTP, batches.
    V2025_03_26,
    /// Elicitation, structured content, no batches.
    V2025_06_18,
    /// URL elicitation, priming events.
    V2025_11_25,
    /// Stateless requests.
    V2026_07_28,
}

/// How a peer opens a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// `initialize`, then a session: 2025-11-25 and earlier.
    Legacy,
    /// Metadata on every request: 2026-07-28 and later.
    Modern,
}

/// Newest first, as peers are told.
const SUPPORTED: [&str; 5] = [
    "2026-07-28",
    "2025-11-25",
    "2025-06-18",
    "2025-03-26",
    "2024-11-05",
];

impl Version {
    /// The newest version with a handshake.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// The newest version without one.
    pub const LATEST_MODERN: Self = Self::V2026_07_28;
    /// What a legacy peer that names no version is taken to speak.
    pub const ASSUMED: Self = Self::V2025_03_26;
    /// Every version, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// The version as it is written in messages and headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The version of that name. `2024-10-07`, which old SDKs still list, is
    /// 2024-11-05 under another name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "2024-10-07" {
            return Some(Self::V2024_11_05);
        }
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The era it belongs to.
    #[must_use]
    pub fn era(self) -> Era {
        if self >= Self::V2026_07_28 {
            Era::Modern
        } else {
            Era::Legacy
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is served, newest first: `server/discover.supportedVersions` and the
/// `data.supported` of a refusal.
#[must_use]
pub fn supported() -> &'static [&'static str] {
    &SUPPORTED
}

/// The version that answers an `initialize` asking for `requested`: that one
/// if it has a handshake, else the newest that has.
#[must_use]
pub fn negotiate(requested: &str) -> Version {
    match Version::parse(requested) {
        Some(version) if version.era() == Era::Legacy => version,
        Some(_) | None => Version::LATEST_LEGACY,
    }
}

/// Whether a header's value names a version of the modern era, served or not:
/// a known one, or a date after the last legacy one.
#[must_use]
pub fn names_modern(text: &str) -> bool {
    let is_date = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    is_date && text > Version::LATEST_LEGACY.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_back() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert_eq!(Version::parse("2024-10-07"), Some(Version::V2024_11_05));
        assert_eq!(Version::parse("2027-01-01"), None);
        assert_eq!(Version::parse(" 2025-11-25"), None);
    }

    #[test]
    fn versions_are_ordered_and_listed_newest_first() {
        assert!(Version::ALL.is_sorted());
        let mut listed: Vec<_> = Version::ALL.iter().map(|v| v.as_str()).collect();
        listed.reverse();
        assert_eq!(listed, supported());
    }

    #[test]
    fn negotiation_echoes_what_has_a_handshake() {
        assert_eq!(negotiate("2025-06-18"), Version::V2025_06_18);
        assert_eq!(negotiate("2024-11-05"), Version::V2024_11_05);
        assert_eq!(negotiate("2024-10-07"), Version::V2024_11_05);
        for other in ["2026-07-28", "2099-01-01", "", "1.0"] {
            assert_eq!(negotiate(other), Version::V2025_11_25);
        }
    }

    #[test]
    fn a_header_names_the_modern_era_by_date() {
        for modern in ["2026-07-28", "2025-11-26", "2031-01-01"] {
            assert!(names_modern(modern), "{modern}");
        }
        for other in [
            "2025-11-25",
            "2024-11-05",
            "2024-10-07",
            "",
            "draft",
            "2026-7-28",
            "2026-07-281",
            "20260728xx",
        ] {
            assert!(!names_modern(other), "{other}");
        }
    }
}
