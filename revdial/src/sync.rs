//! The lock of a link: the standard library's, or the one of `loom` where its model runs (`--cfg revdial_loom`).

#[cfg(all(test, revdial_loom))]
pub(crate) use loom::sync::Mutex;
#[cfg(not(all(test, revdial_loom)))]
pub(crate) use std::sync::Mutex;
