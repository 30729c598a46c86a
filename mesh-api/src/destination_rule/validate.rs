//! stub
use super::DestinationRule;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn destination_rule(_: &DestinationRule, _: &ObjectMeta, _: &mut Cx) {}
