//! stub
use super::Gateway;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn gateway(_: &Gateway, _: &ObjectMeta, _: &mut Cx) {}
