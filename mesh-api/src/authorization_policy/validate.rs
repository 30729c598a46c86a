//! stub
use super::AuthorizationPolicy;
use crate::field::Cx;
use crate::object::ObjectMeta;
pub(super) fn authorization_policy(_: &AuthorizationPolicy, _: &ObjectMeta, _: &mut Cx) {}
