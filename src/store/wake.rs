//! Wakes the readers of a stream that are in this process.
