//! Engines: where containers run.
