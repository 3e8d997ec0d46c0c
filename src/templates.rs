//! Recipes for servers, and what they come to with a user's settings.
//!
//! In reading order: `format` reads a `template.json` (its parts: `property`,
//! `transport`, `isolation`, `tools`, `volumes`) into a [`Template`];
//! `resolve` makes a [`spec::ServerSpec`] of it and [`Settings`];
//! [`Catalogue`] knows all templates there are. Nothing here runs anything.

mod builtin;
mod catalogue;
mod coerce;
mod files;
mod format;
pub mod import;
mod isolation;
mod property;
mod resolve;
mod settings;
pub mod spec;
mod template;
mod tools;
mod transport;
mod volumes;

pub use self::{
    catalogue::{Broken, Catalogue, Files, Known, TemplateError, broken_in},
    property::{ArgumentRule, MountRule, Property},
    settings::{SettingProblem, Settings, SettingsErrors},
    template::{Origin, Template, TextDigest, ToolDiscovery},
};
