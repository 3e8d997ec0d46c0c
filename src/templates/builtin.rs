//! The templates that are part of the program.

use std::{collections::BTreeMap, sync::Arc};

use super::{format, template::Origin, template::Template};
use crate::ids::ServerId;

macro_rules! texts {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../config/templates/", $name, "/template.json")))),+]
    };
}

/// Names and texts.
pub(super) const TEXTS: [(&str, &str); 1] = texts!["demo"];

/// Reads them. A test sees to it that there is nothing wrong with them.
pub(super) fn templates() -> BTreeMap<ServerId, Arc<Template>> {
    let read = |(name, text): (&str, &str)| {
        let name = ServerId::try_from(name).ok()?;
        let path = format!("config/templates/{name}/template.json");
        let template = format::read(&name, Origin::BuiltIn, &path, text).ok()?;
        Some((name, Arc::new(template)))
    };
    TEXTS.into_iter().filter_map(read).collect()
}
