//! Tools of a server or template, from whoever answers in time.
