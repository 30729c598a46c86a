//! Trace contexts in headers: B3 in many headers and in one, and W3C's `traceparent`.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// 128 bits; the upper half is zero for Zipkin's short ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

/// 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

impl TraceId {
    /// A new one.
    pub fn random(rng: &mut impl Rng, long: bool) -> Self {
        let low = u128::from(rng.random_range(1..=u64::MAX));
        Self(if long { low | u128::from(rng.random_range(1..=u64::MAX)) << 64 } else { low })
    }
}

impl SpanId {
    /// A new one.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self(rng.random_range(1..=u64::MAX))
    }
}

/// Sixteen digits where they suffice, else thirty-two.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >> 64 == 0 { write!(f, "{:016x}", self.0) } else { write!(f, "{:032x}", self.0) }
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a request brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The trace and the caller's span; `None` where only a decision was sent.
    pub ids: Option<(TraceId, SpanId)>,
    /// The parent of the caller's span.
    pub parent: Option<SpanId>,
    /// What the caller decided, if it did.
    pub sampled: Option<bool>,
}

/// Which headers are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// B3.
    B3,
    /// B3, and `traceparent` beside it.
    B3AndW3c,
    /// `traceparent`.
    W3c,
}

impl Context {
    /// Reads the context of a request. What is malformed counts as absent: a trace is no reason to refuse a request.
    pub fn extract(headers: &HeaderMap, propagation: Propagation) -> Self {
        match propagation {
            Propagation::B3 => b3(headers),
            Propagation::W3c => w3c(headers),
            Propagation::B3AndW3c => {
                let context = b3(headers);
                if context.ids.is_some() { context } else { w3c(headers) }
            }
        }
    }
}

/// Writes the context that the next hop sees.
pub(super) fn inject(
    headers: &mut HeaderMap,
    propagation: Propagation,
    (trace, span): (TraceId, SpanId),
    parent: Option<SpanId>,
    sampled: bool,
) {
    if propagation != Propagation::W3c {
        set(headers, B3_TRACE, &trace.to_string());
        set(headers, B3_SPAN, &span.to_string());
        match parent {
            Some(parent) => set(headers, B3_PARENT, &parent.to_string()),
            None => {
                headers.remove(B3_PARENT);
            }
        }
        headers.insert(B3_SAMPLED, HeaderValue::from_static(if sampled { "1" } else { "0" }));
        // It would contradict the headers above.
        headers.remove(B3);
    }
    if propagation != Propagation::B3 {
        let parent = format!("00-{:032x}-{span}-{:02x}", trace.0, u8::from(sampled));
        set(headers, TRACEPARENT, &parent);
    }
}

/// Changes the decision in a context that is there.
pub(crate) fn set_sampled(headers: &mut HeaderMap, sampled: bool) {
    let digit = if sampled { "1" } else { "0" };
    if headers.contains_key(B3_SAMPLED) {
        headers.insert(B3_SAMPLED, HeaderValue::from_static(digit));
    }
    let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    if let Some(start) = parent.and_then(|text| text.get(..text.len().checked_sub(1)?))
        && let Ok(value) = HeaderValue::from_str(&format!("{start}{digit}"))
    {
        headers.insert(TRACEPARENT, value);
    }
}

/// `tracestate`, which is handed on as it is.
pub(super) fn trace_state(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACESTATE)?.to_str().ok()
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Hexadecimal digits and hyphens are a header's value.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn b3(headers: &HeaderMap) -> Context {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(single) = text(&B3)
        && let Some(context) = b3_single(single)
    {
        return context;
    }
    let debug = text(&B3_FLAGS) == Some("1");
    let sampled = match text(&B3_SAMPLED) {
        Some("1" | "true" | "d") => Some(true),
        Some("0" | "false") => Some(false),
        _ => debug.then_some(true),
    };
    let ids = text(&B3_TRACE).and_then(trace_id).zip(text(&B3_SPAN).and_then(span_id));
    Context { ids, parent: text(&B3_PARENT).and_then(span_id), sampled }
}

fn b3_single(text: &str) -> Option<Context> {
    let decision = |text: &str| match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    if let Some(sampled) = decision(text) {
        return Some(Context { sampled: Some(sampled), ..Context::default() });
    }
    let mut parts = text.split('-');
    let ids = (trace_id(parts.next()?)?, span_id(parts.next()?)?);
    let sampled = parts.next().and_then(decision);
    Some(Context { ids: Some(ids), parent: parts.next().and_then(span_id), sampled })
}

fn w3c(headers: &HeaderMap) -> Context {
    let parse = |text: &str| {
        let mut parts = text.split('-');
        let version = parts.next().filter(|version| version.len() == 2 && *version != "ff")?;
        let trace = parts.next().filter(|trace| trace.len() == 32)?;
        let span = parts.next().filter(|span| span.len() == 16)?;
        let flags = u8::from_str_radix(parts.next()?.get(..2)?, 16).ok()?;
        if version == "00" && parts.next().is_some() {
            return None;
        }
        Some(Context {
            ids: Some((trace_id(trace)?, span_id(span)?)),
            parent: None,
            sampled: Some(flags & 1 == 1),
        })
    };
    let value = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
    value.and_then(parse).unwrap_or_default()
}

fn trace_id(text: &str) -> Option<TraceId> {
    let valid = matches!(text.len(), 1..=32) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u128::from_str_radix(text, 16).ok().filter(|id| valid && *id != 0)?;
    Some(TraceId(id))
}

fn span_id(text: &str) -> Option<SpanId> {
    let valid = matches!(text.len(), 1..=16) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u64::from_str_radix(text, 16).ok().filter(|id| valid && *id != 0)?;
    Some(SpanId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        pairs.iter().map(parse).collect::<HeaderMap>()
    }

    #[test]
    fn b3_in_one_header_and_in_many_say_the_same() {
        let many = headers(&[
            ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
            ("x-b3-sampled", "1"),
        ]);
        let one = headers(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")]);
        let context = Context::extract(&many, Propagation::B3);
        assert_eq!(context, Context::extract(&one, Propagation::B3));
        assert_eq!(context.sampled, Some(true));
        assert_eq!(context.ids.unwrap().1, SpanId(0xe457_b5a2_e4d8_6bd1));
    }

    #[test]
    fn malformed_contexts_count_as_absent() {
        for value in ["zz-1-1", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff-1-2-3", ""] {
            let context = Context::extract(&headers(&[("traceparent", value)]), Propagation::W3c);
            assert_eq!(context, Context::default(), "{value}");
        }
        let context =
            Context::extract(&headers(&[("x-b3-traceid", "+1"), ("x-b3-spanid", "1")]), Propagation::B3);
        assert_eq!(context.ids, None);
    }

    #[test]
    fn what_is_injected_is_extracted() {
        let ids = (TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736), SpanId(0x00f0_67aa_0ba9_02b7));
        for propagation in [Propagation::B3, Propagation::W3c, Propagation::B3AndW3c] {
            let mut map = headers(&[("b3", "0")]);
            inject(&mut map, propagation, ids, None, true);
            let context = Context::extract(&map, propagation);
            assert_eq!((context.ids, context.sampled), (Some(ids), Some(true)), "{propagation:?}");
        }
        let mut map = HeaderMap::new();
        inject(&mut map, Propagation::W3c, ids, None, true);
        assert_eq!(map["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    }
}
