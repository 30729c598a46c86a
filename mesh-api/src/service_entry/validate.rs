//! stub
use super::ServiceEntry;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn service_entry(_: &ServiceEntry, _: &ObjectMeta, _: &mut Cx) {}
