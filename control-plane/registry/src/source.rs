//! Where objects come from.

use std::future::Future;

use tokio::sync::mpsc;

use crate::object::{Key, Object};

/// A change of what a source has. Changes of one message belong together: readers see all of them or none.
#[derive(Debug, Clone)]
pub enum Change {
    /// Everything that the source has now: what is not among it is gone.
    Replace(Vec<Object>),
    /// Every object of one kind that the source has now.
    ReplaceKind {
        /// The kind.
        kind: &'static str,
        /// Its objects.
        objects: Vec<Object>,
    },
    /// An object that is new or changed.
    Upsert(Object),
    /// An object that is gone.
    Delete(Key),
}

/// A source of objects.
pub trait Source: Send + 'static {
    /// Sends changes until nobody listens. The first message is the complete initial state; a source that loses its
    /// connection sends nothing meanwhile, so that what was known stays.
    fn run(self, changes: mpsc::Sender<Vec<Change>>) -> impl Future<Output = ()> + Send;
}
