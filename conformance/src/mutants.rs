//! Connections with one fault each.
