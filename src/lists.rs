//! The lists of servers: fetched whole, cached, served in pages, merged.
