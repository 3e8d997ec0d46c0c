//! Tests of reading and writing messages.
