//! Carries a call between a client and a server of any two eras.
