//! `InternalRedirectPolicy`, and the fields that it replaced.

use sail_proxy_decide::route::{InternalRedirect, RedirectPredicate};
use xds_api::envoy::extensions::internal_redirect as predicates;

use crate::convert::{Cx, headers, type_name, values};
use crate::pb;

pub(super) fn policy(
    cx: &mut Cx<'_>,
    policy: Option<pb::route::InternalRedirectPolicy>,
    old_action: i32,
    old_max: Option<pb::UInt32Value>,
) -> Option<InternalRedirect> {
    use pb::route::route_action::InternalRedirectAction;
    let Some(value) = policy else {
        return (old_action == InternalRedirectAction::HandleInternalRedirect as i32).then(|| {
            InternalRedirect {
                max: values::u32_or(old_max, 1),
                codes: [302].into(),
                allow_cross_scheme: false,
                copy: Box::default(),
                predicates: Box::default(),
            }
        });
    };
    cx.within("internal_redirect_policy", |cx| {
        let pb::route::InternalRedirectPolicy {
            max_internal_redirects,
            redirect_response_codes,
            predicates,
            allow_cross_scheme_redirect,
            response_headers_to_copy,
        } = value;
        let known = [301, 302, 303, 307, 308];
        let mut codes: Vec<u16> =
            known.into_iter().filter(|code| redirect_response_codes.contains(&u32::from(*code))).collect();
        if redirect_response_codes.is_empty() {
            codes.push(302);
        }
        Some(InternalRedirect {
            max: values::u32_or(max_internal_redirects, 1),
            codes: codes.into(),
            allow_cross_scheme: allow_cross_scheme_redirect,
            copy: cx
                .each("response_headers_to_copy", response_headers_to_copy, |cx, name| {
                    headers::name(cx, "", &name)
                })
                .into(),
            predicates: cx.each("predicates", predicates, predicate).into(),
        })
    })
}

fn predicate(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<RedirectPredicate> {
    let any = value.typed_config.unwrap_or_default();
    match type_name(&any) {
        "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig" => {
            Some(RedirectPredicate::PreviousRoutes)
        }
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig" => {
            Some(RedirectPredicate::SafeCrossScheme)
        }
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig" => {
            let predicates::allow_listed_routes::v3::AllowListedRoutesConfig { allowed_route_names } =
                cx.unpack(&any)?;
            Some(RedirectPredicate::AllowListed(allowed_route_names.into_iter().map(Box::from).collect()))
        }
        other => {
            cx.error("typed_config", format_args!("the redirect predicate {other:?} is not supported"));
            None
        }
    }
}
