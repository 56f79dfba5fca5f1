//! `/tgz` and `/writetgz`: gzip-compressed tar archives, streamed both ways in bounded memory.
//!
//! Archives are read and written on threads for blocking work: an asynchronous archive would change threads several times
//! for each file. The tar format is read here rather than by a library because a library reads names, which a hostile
//! archive makes as long as it likes, into memory whole.

mod case;
mod gzip;
mod pack;
mod reader;
mod sparse;
mod unpack;
mod writer;

pub(crate) use pack::{Members, pack, pack_file};
pub(crate) use unpack::unpack;
