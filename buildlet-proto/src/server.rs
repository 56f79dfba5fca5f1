//! A [`Buildlet`](crate::Buildlet) on a wire.
