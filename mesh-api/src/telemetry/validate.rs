//! What a Telemetry must keep to beyond its types.

use super::{AccessLogging, CustomTag, Metrics, ProviderRef, TagOperation, Telemetry, Tracing};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;

pub(super) fn telemetry(telemetry: &Telemetry, _: &ObjectMeta, cx: &mut Cx) {
    check::selector("selector", telemetry.selector.as_ref(), cx);
    check::targets(telemetry.selector.as_ref(), telemetry.target_ref.as_ref(), &telemetry.target_refs, cx);
    if telemetry.tracing.len() > 1 {
        cx.warn_at("tracing", "has several entries: only the first is used");
    }
    cx.each("tracing", &telemetry.tracing, tracing);
    cx.each("metrics", &telemetry.metrics, metrics);
    cx.each("accessLogging", &telemetry.access_logging, access_logging);
}

fn providers(providers: &[ProviderRef], cx: &mut Cx) {
    cx.each("providers", providers, |cx, provider| {
        if provider.name.is_empty() {
            cx.error_at("name", "must be set");
        }
    });
}

fn tracing(cx: &mut Cx, tracing: &Tracing) {
    providers(&tracing.providers, cx);
    if tracing.providers.len() > 1 {
        cx.warn_at("providers", "has several entries: only the first is used");
    }
    if tracing.random_sampling_percentage.is_some_and(|p| !(0.0..=100.0).contains(&p.get())) {
        cx.error_at("randomSamplingPercentage", "must be between 0 and 100");
    }
    for (name, tag) in &tracing.custom_tags {
        cx.field("customTags", |cx| cx.key(name, |cx| custom_tag(name, tag, cx)));
    }
}

fn custom_tag(name: &str, tag: &CustomTag, cx: &mut Cx) {
    if name.is_empty() {
        cx.error("the name of a tag must not be empty");
    }
    check::exactly_one(
        &[
            ("literal", tag.literal.is_some()),
            ("environment", tag.environment.is_some()),
            ("header", tag.header.is_some()),
            ("formatter", tag.formatter.is_some()),
        ],
        cx,
    );
    cx.some("environment", tag.environment.as_ref(), |cx, tag| {
        if tag.name.is_empty() {
            cx.error_at("name", "must be set");
        }
    });
    cx.some("header", tag.header.as_ref(), |cx, tag| {
        cx.field("name", |cx| check::header_name(&tag.name, cx))
    });
}

fn metrics(cx: &mut Cx, metrics: &Metrics) {
    providers(&metrics.providers, cx);
    check::positive("reportingInterval", metrics.reporting_interval, cx);
    cx.each("overrides", &metrics.overrides, |cx, change| {
        cx.some("match", change.r#match.as_ref(), |cx, matcher| {
            if matcher.metric.is_some() && !matcher.custom_metric.is_empty() {
                cx.error("only one of metric and customMetric may be set");
            }
        });
        for (name, tag) in &change.tag_overrides {
            cx.field("tagOverrides", |cx| {
                cx.key(name, |cx| match tag.operation {
                    TagOperation::Upsert if tag.value.is_empty() => {
                        cx.error_at("value", "must be set for UPSERT")
                    }
                    TagOperation::Remove if !tag.value.is_empty() => {
                        cx.error_at("value", "must not be set for REMOVE");
                    }
                    _ => {}
                });
            });
        }
    });
}

fn access_logging(cx: &mut Cx, logging: &AccessLogging) {
    providers(&logging.providers, cx);
    cx.some("filter", logging.filter.as_ref(), |cx, filter| {
        if filter.expression.trim().is_empty() {
            cx.error_at("expression", "must be set");
        }
    });
}
