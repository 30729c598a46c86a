//! stub
use super::Sidecar;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn sidecar(_: &Sidecar, _: &ObjectMeta, _: &mut Cx) {}
