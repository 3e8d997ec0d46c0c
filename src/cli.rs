//! The command line: arguments, and the commands that talk to a node.
