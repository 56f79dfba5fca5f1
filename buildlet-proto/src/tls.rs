//! TLS connections to a server that is known by a pin.
