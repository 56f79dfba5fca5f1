//! The catalogue, a page for each group.

pub mod cut;
pub mod drop;
pub mod eof;
pub mod half;
pub mod io;
pub mod shutdown;

use crate::case::Case;

/// Every page, in order.
pub(crate) static GROUPS: &[&[&Case]] = &[
    io::ALL,
    eof::ALL,
    half::ALL,
    shutdown::ALL,
    drop::ALL,
    cut::ALL,
];
