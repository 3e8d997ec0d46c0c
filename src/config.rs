//! Configuration: parsed once, checked, plain typed structs.
