//! Resources by the inputs that they were made from.

/// The resources made so far, to share between pushes and proxies.
#[derive(Debug, Default)]
pub struct Cache {}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
}
