//! The bridge as a program, in front of real processes: who is let in, what
//! passes unchanged, what survives a crash, and how it ends.

mod crashes;
mod endings;
mod messages;
mod misbehaviour;
mod modes;
mod real_servers;
