//! Child processes that speak over their standard streams: starting and ending
//! them, reading their lines, waiting before the next start.
//!
//! What the lines mean is the business of whoever started the process.

pub mod backoff;
pub mod lines;
pub mod process;
pub mod reaper;
pub mod tail;
