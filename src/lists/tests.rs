//! `made`: what is made of lists. `served`: lists of servers over real sockets.

mod made;
mod node;
mod served;
