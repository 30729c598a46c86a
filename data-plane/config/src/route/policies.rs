//! Policies of routes: retry, hash, mirror.

use std::time::Duration;

use http::HeaderName;
use sail_proxy_decide::route::hash::{CookieHash, HashPolicy, HashSource};
use sail_proxy_decide::route::retry::{
    BackOff, HostPredicate, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy,
};
use sail_proxy_decide::route::{MirrorCluster, MirrorPolicy};

use crate::convert::{Cx, arc, headers, matchers, type_name, values};
use crate::{http_filter, pb};

/// `RetryPolicy`
pub(crate) fn retry(cx: &mut Cx<'_>, value: pb::route::RetryPolicy) -> Option<RetryPolicy> {
    let pb::route::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        // DNS clusters resolve names on their own schedule.
        refresh_cluster_on_retry: _,
    } = value;
    cx.refuse("retry_options_predicates", &retry_options_predicates);
    let (on, unknown) = RetryOn::parse(&retry_on);
    if let Some(unknown) = unknown {
        cx.warn("retry_on", format_args!("{unknown:?} is no retry condition"));
    }
    Some(RetryPolicy {
        on,
        num_retries: values::u32_or(num_retries, 1),
        per_try_timeout: values::limit(cx, "per_try_timeout", per_try_timeout, None),
        per_try_idle_timeout: values::limit(cx, "per_try_idle_timeout", per_try_idle_timeout, None),
        retriable_status_codes: cx
            .each("retriable_status_codes", retriable_status_codes, |cx, code| {
                cx.ok("", u16::try_from(code).map_err(|_| format!("{code} is not a status")))
            })
            .into(),
        retriable_headers: matchers::headers(cx, "retriable_headers", retriable_headers),
        retriable_request_headers: matchers::headers(
            cx,
            "retriable_request_headers",
            retriable_request_headers,
        ),
        back_off: cx.option("retry_back_off", retry_back_off, back_off).unwrap_or_default(),
        rate_limited_back_off: cx.option(
            "rate_limited_retry_back_off",
            rate_limited_retry_back_off,
            rate_limited,
        ),
        host_predicates: cx.each("retry_host_predicate", retry_host_predicate, host_predicate).into(),
        host_selection_max_attempts: u32::try_from(host_selection_retry_max_attempts).unwrap_or(1).max(1),
        previous_priorities: cx.option("retry_priority", retry_priority, previous_priorities),
    })
}

fn back_off(cx: &mut Cx<'_>, value: pb::route::retry_policy::RetryBackOff) -> Option<BackOff> {
    let pb::route::retry_policy::RetryBackOff { base_interval, max_interval } = value;
    let base = values::duration(cx, "base_interval", base_interval).filter(|base| !base.is_zero());
    let Some(base) = base else {
        cx.error("base_interval", "it must be above 0");
        return None;
    };
    let max = values::duration(cx, "max_interval", max_interval);
    if max.is_some_and(|max| max < base) {
        cx.error("max_interval", "it must not be below base_interval");
    }
    let shortest = Duration::from_millis(1);
    let base = base.max(shortest);
    Some(BackOff { base, max: max.map_or(base.saturating_mul(10), |max| max.max(shortest)) })
}

fn rate_limited(
    cx: &mut Cx<'_>,
    value: pb::route::retry_policy::RateLimitedRetryBackOff,
) -> Option<RateLimitedBackOff> {
    use pb::route::retry_policy::ResetHeaderFormat;
    let pb::route::retry_policy::RateLimitedRetryBackOff { reset_headers, max_interval } = value;
    let reset_headers = cx.each("reset_headers", reset_headers, |cx, value| {
        let pb::route::retry_policy::ResetHeader { name, format } = value;
        let format = match ResetHeaderFormat::try_from(format) {
            Ok(ResetHeaderFormat::UnixTimestamp) => ResetFormat::UnixTimestamp,
            _ => ResetFormat::Seconds,
        };
        Some((headers::name(cx, "name", &name)?, format))
    });
    let max = values::duration(cx, "max_interval", max_interval).unwrap_or(Duration::from_secs(300));
    Some(RateLimitedBackOff { reset_headers: reset_headers.into(), max })
}

fn host_predicate(
    cx: &mut Cx<'_>,
    value: pb::route::retry_policy::RetryHostPredicate,
) -> Option<HostPredicate> {
    use pb::route::retry_policy::retry_host_predicate::ConfigType;
    use xds_api::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
    let pb::route::retry_policy::RetryHostPredicate { name, config_type } = value;
    let kind = config_type.as_ref().map_or(name.as_str(), |ConfigType::TypedConfig(any)| type_name(any));
    match kind {
        "envoy.retry_host_predicates.previous_hosts"
        | "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" => {
            Some(HostPredicate::PreviousHosts)
        }
        "envoy.retry_host_predicates.omit_canary_hosts"
        | "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate" => {
            Some(HostPredicate::OmitCanaryHosts)
        }
        "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig" => {
            let ConfigType::TypedConfig(any) = config_type?;
            let OmitHostMetadataConfig { metadata_match } =
                cx.within("typed_config", |cx| cx.unpack(&any))?;
            let all = values::metadata(cx, "typed_config.metadata_match", metadata_match);
            let values = all.as_ref().and_then(|all| all.get("envoy.lb")?.as_object());
            Some(HostPredicate::OmitHostMetadata(Box::new(values.cloned().unwrap_or_default())))
        }
        other => {
            cx.error("typed_config", format_args!("the retry host predicate {other:?} is not supported"));
            None
        }
    }
}

fn previous_priorities(cx: &mut Cx<'_>, value: pb::route::retry_policy::RetryPriority) -> Option<u32> {
    use pb::route::retry_policy::retry_priority::ConfigType;
    use xds_api::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let pb::route::retry_policy::RetryPriority { name, config_type } = value;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        cx.error("typed_config", format_args!("the retry priority {name:?} has no configuration"));
        return None;
    };
    let config: PreviousPrioritiesConfig = cx.within("typed_config", |cx| cx.unpack(&any))?;
    u32::try_from(config.update_frequency).ok().filter(|frequency| *frequency > 0)
}

/// `HedgePolicy`; two of its fields have no effect in Envoy either.
pub(crate) fn hedge(cx: &mut Cx<'_>, value: pb::route::HedgePolicy) -> Option<bool> {
    let pb::route::HedgePolicy { initial_requests, additional_request_chance, hedge_on_per_try_timeout } =
        value;
    match initial_requests {
        Some(value) if value.value == 0 => cx.error("initial_requests", "it must be above 0"),
        value => {
            let several = value.filter(|value| value.value > 1);
            cx.ignore("initial_requests", &several, "one request is sent at first, as by Envoy");
        }
    }
    let chance = additional_request_chance.filter(|chance| chance.numerator > 0);
    cx.ignore("additional_request_chance", &chance, "no request is sent by chance, as by Envoy");
    Some(hedge_on_per_try_timeout)
}

/// `HashPolicy`
pub(crate) fn hash_policy(cx: &mut Cx<'_>, value: pb::route::route_action::HashPolicy) -> Option<HashPolicy> {
    use pb::route::route_action::hash_policy::PolicySpecifier as Kind;
    let pb::route::route_action::HashPolicy { terminal, policy_specifier } = value;
    let source = match policy_specifier {
        Some(Kind::Header(value)) => {
            let name: HeaderName = headers::name(cx, "header.header_name", &value.header_name)?;
            HashSource::Header(
                name,
                cx.option("header.regex_rewrite", value.regex_rewrite, matchers::rewrite),
            )
        }
        Some(Kind::Cookie(value)) => {
            let pb::route::route_action::hash_policy::Cookie { name, ttl, path, attributes } = value;
            let attribute = |attribute: pb::route::route_action::hash_policy::CookieAttribute| {
                let pb::route::route_action::hash_policy::CookieAttribute { name, value } = attribute;
                if value.is_empty() { name.into() } else { format!("{name}={value}").into() }
            };
            HashSource::Cookie(CookieHash {
                name: name.into(),
                ttl: values::duration(cx, "cookie.ttl", ttl),
                path: path.into(),
                attributes: attributes.into_iter().map(attribute).collect(),
            })
        }
        Some(Kind::ConnectionProperties(value)) if value.source_ip => HashSource::SourceIp,
        Some(Kind::ConnectionProperties(_)) => return None,
        Some(Kind::QueryParameter(value)) => HashSource::QueryParameter(value.name.into()),
        Some(Kind::FilterState(value)) => HashSource::FilterState(value.key.into()),
        None => {
            cx.error("policy_specifier", "it must be set");
            return None;
        }
    };
    Some(HashPolicy { source, terminal })
}

/// `RequestMirrorPolicy`
pub(crate) fn mirror(
    cx: &mut Cx<'_>,
    value: pb::route::route_action::RequestMirrorPolicy,
) -> Option<MirrorPolicy> {
    let pb::route::route_action::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = value;
    let cluster = match (cluster.is_empty(), cluster_header.is_empty()) {
        (false, true) => MirrorCluster::Name(arc(cluster)),
        (true, false) => MirrorCluster::Header(headers::name(cx, "cluster_header", &cluster_header)?),
        _ => {
            cx.error("cluster", "either cluster or cluster_header must be set");
            return None;
        }
    };
    let host_rewrite = if host_rewrite_literal.is_empty() {
        None
    } else {
        headers::value(cx, "host_rewrite_literal", &host_rewrite_literal)
    };
    Some(MirrorPolicy {
        cluster,
        fraction: cx.option("runtime_fraction", runtime_fraction, values::runtime_fraction),
        disable_shadow_host_suffix_append,
        trace_sampled: trace_sampled.map(|value| value.value),
        request_headers: cx
            .each(
                "request_headers_mutations",
                request_headers_mutations,
                http_filter::header_mutation::mutation,
            )
            .into(),
        host_rewrite,
    })
}
