//! stub
use super::Telemetry;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn telemetry(_: &Telemetry, _: &ObjectMeta, _: &mut Cx) {}
