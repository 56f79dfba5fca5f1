//! What a user asks a coordinator for.
