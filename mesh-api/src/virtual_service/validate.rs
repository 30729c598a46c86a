//! stub
use super::VirtualService;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn virtual_service(_: &VirtualService, _: &ObjectMeta, _: &mut Cx) {}
