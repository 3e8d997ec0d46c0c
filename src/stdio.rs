//! Child processes that speak over their standard streams.
