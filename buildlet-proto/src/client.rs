//! [`Buildlet`](crate::Buildlet) over HTTP.
