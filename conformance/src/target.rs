//! A transport with a name and claims.

use std::fmt;
use std::sync::Arc;

use crate::caps::{Cap, Caps};
use crate::mux::{MakeMux, OneStream};
use crate::pair::MakePair;

/// A transport under test: how to make it, and what it claims.
#[derive(Clone)]
pub struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) caps: Caps,
    pub(crate) pairs: Arc<dyn MakePair>,
    pub(crate) mux: Option<Arc<dyn MakeMux>>,
}

impl Target {
    /// A transport of connections.
    pub fn pairs(name: &str, maker: impl MakePair, caps: Caps) -> Self {
        Self {
            name: name.into(),
            caps: caps.without(Cap::Mux),
            pairs: Arc::new(maker),
            mux: None,
        }
    }

    /// A multiplexer. The cases about single connections run on one stream of a fresh session.
    pub fn mux(name: &str, maker: impl MakeMux, caps: Caps) -> Self {
        let mux: Arc<dyn MakeMux> = Arc::new(maker);
        Self {
            name: name.into(),
            caps: caps.with(Cap::Mux),
            pairs: Arc::new(OneStream(Arc::clone(&mux))),
            mux: Some(mux),
        }
    }

    /// The name in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the transport claims.
    pub fn caps(&self) -> Caps {
        self.caps
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}
