//! `/listeners`.

use super::Page;
use crate::server::Main;

pub(super) fn page(_main: &Main, _params: &super::Params) -> Page {
    super::text(http::StatusCode::OK, String::new())
}
