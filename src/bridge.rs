//! HTTP in front of a stdio server, inside its container.
//!
//! A request comes in at [`service`], whose sender [`door`] checks; [`backend`]
//! says which process it is for, and a [`worker`] keeps that process alive.
//! What the process says is given to whom it belongs by a [`table`]. Nobody's
//! messages wait for anybody else's: [`input`] takes turns, an [`outbox`] that
//! is full is cut. [`run`] is the program; [`signer`] is the nodes' side.

pub mod args;
pub mod backend;
pub mod door;
pub mod fair;
pub mod flood;
pub mod input;
pub mod memory;
pub mod nodes;
pub mod not_taken;
pub mod outbox;
pub mod presence;
pub mod reply;
pub mod run;
pub mod service;
pub mod session;
pub mod signer;
pub mod splice;
pub mod table;
pub mod tap;
pub mod token;
pub mod worker;
