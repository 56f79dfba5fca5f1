//! 9P2000, the protocol of Plan 9's files, as far as a console needs it: `message` is the codec, `tree` the few files
//! that there are, and `server` what answers.

pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod tree;
