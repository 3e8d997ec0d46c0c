//! A test per row of the requirement table in `docs/requirements.md`, named by
//! the row's id. What the rows say about both eras of servers is tried with both.

mod caching;
mod cancellation;
mod envelope;
mod eras;
mod errors;
mod headers;
mod input;
mod input_state;
mod legacy_shape;
mod listen;
mod lists;
mod names;
mod param_headers;
mod results;
mod session_streams;
mod sessions;
mod streams;
pub(crate) mod table;
mod trace;
mod transport;

use crate::support::fake_server::{SESSIONS, Speaks};

/// A server of each era.
const BOTH: [Speaks; 2] = [Speaks::Modern, SESSIONS];

/// The versions that have sessions over Streamable HTTP.
const SESSION_VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
