//! Recipes for servers, and what they come to with a user's settings.

pub mod spec;
