//! `/certs`.

use super::Page;
use crate::server::Main;

pub(super) fn page(_main: &Main) -> Page {
    super::json(&serde_json::json!({ "certificates": [] }))
}
