//! The catalogue, a page for each group.

pub mod addr;
pub mod bp;
pub mod cancel;
pub mod close;
pub mod cut;
pub mod deadline;
pub mod drop;
pub mod eof;
pub mod flush;
pub mod half;
pub mod io;
pub mod mem;
pub mod mux;
pub mod nettest;
pub mod reset;
pub mod shutdown;
pub mod wake;
pub mod wire;

use crate::case::Case;

/// Every page, in order.
pub(crate) static GROUPS: &[&[&Case]] = &[
    io::ALL,
    eof::ALL,
    half::ALL,
    shutdown::ALL,
    drop::ALL,
    cut::ALL,
    reset::ALL,
    close::ALL,
    flush::ALL,
    bp::ALL,
    mem::ALL,
    wake::ALL,
    cancel::ALL,
    deadline::ALL,
    addr::ALL,
    nettest::ALL,
    mux::ALL,
    wire::ALL,
];
