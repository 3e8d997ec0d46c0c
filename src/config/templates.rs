//! `[templates]`: where recipes for servers are found.

use std::path::PathBuf;

use super::{section::Section, values};

/// Where recipes for servers are found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Templates {
    /// Directories beside the built-in templates. Default: none.
    pub directories: Vec<PathBuf>,
}

impl Templates {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let templates = Self {
            directories: section.read("directories", Vec::new(), |located| {
                let paths = values::texts(located)?;
                Ok(paths
                    .iter()
                    .map(|path| located.place.resolve(path))
                    .collect())
            }),
        };
        section.finish();
        templates
    }
}
