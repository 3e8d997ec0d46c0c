//! `[templates]`: where recipes for servers are found. Accepted and checked; nothing reads them yet.

use std::path::PathBuf;

/// Where recipes for servers are found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Templates {
    /// Directories beside the built-in templates. Default: none.
    pub directories: Vec<PathBuf>,
}
