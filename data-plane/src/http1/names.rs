//! How the names of a message's headers were spelled, for the other side of the proxy.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

/// See the module's documentation. It travels among the extensions of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<HeaderMap<Bytes>>);

impl Names {
    /// The names of these headers of a block.
    pub(super) fn of(block: &Bytes, headers: &[httparse::Header<'_>]) -> Self {
        let mut names = HeaderMap::with_capacity(headers.len());
        for header in headers {
            let spelled = header.name.as_bytes();
            if let Ok(name) = HeaderName::from_bytes(spelled) {
                names.append(name, block.slice_ref(spelled));
            }
        }
        Self(Arc::new(names))
    }

    /// How a name was spelled in the line that had it so many times before.
    pub(super) fn get(&self, name: &HeaderName, before: usize) -> Option<&Bytes> {
        self.0.get_all(name).iter().nth(before)
    }
}
