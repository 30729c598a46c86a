//! Filters with a matcher around them. What is expected was written by Envoy.

use super::h2::{self, Message};
use super::setup::{FILTERS, HTTP2, agrees, bootstrap, cluster, line};
use super::support::Proxy;

const MATCHING: &str = "type.googleapis.com/envoy.extensions.common.matching.v3";

/// A filter that marks requests and responses.
fn marks(mark: &str) -> String {
    let append = format!("[{{append: {{header: {{key: x-mark, value: {mark}}}}}}}]");
    format!(
        "{{name: marks, typed_config: {{\"@type\": {FILTERS}.header_mutation.v3.HeaderMutation, mutations: \
         {{request_mutations: {append}, response_mutations: {append}}}}}}}"
    )
}

/// By a header, of requests or of responses.
fn tree(input: &str, header: &str, actions: &[(&str, &str)]) -> String {
    let actions: Vec<_> = actions
        .iter()
        .map(|(value, config)| format!("{value}: {{action: {{name: a, typed_config: {config}}}}}"))
        .collect();
    format!(
        "{{matcher_tree: {{input: {{name: i, typed_config: {{\"@type\": type.googleapis.com/envoy.type.matcher.v3.{input}, \
         header_name: {header}}}}}, exact_match_map: {{map: {{{}}}}}}}}}",
        actions.join(", ")
    )
}

fn with_matcher(name: &str, inner: &str, matcher: &str) -> String {
    format!(
        "{{name: {name}, typed_config: {{\"@type\": {MATCHING}.ExtensionWithMatcher, extension_config: {inner}, \
         xds_matcher: {matcher}}}}}, "
    )
}

#[test]
fn let_requests_past_filters() {
    let skip =
        "{\"@type\": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}";
    let execute = |mark: &str| {
        format!("{{\"@type\": {FILTERS}.composite.v3.ExecuteFilterAction, typed_config: {}}}", marks(mark))
    };
    let by_request = tree("HttpRequestHeaderMatchInput", "x-skip", &[("\"yes\"", skip)]);
    let by_response = tree("HttpResponseHeaderMatchInput", "x-answer", &[("skip", skip)]);
    let one = execute("one");
    let two = execute("two");
    let composite = format!("{{name: c, typed_config: {{\"@type\": {FILTERS}.composite.v3.Composite}}}}");
    let filters = with_matcher("first", &marks("first"), &by_request)
        + &with_matcher("second", &marks("second"), &by_response)
        + &with_matcher(
            "third",
            &composite,
            &tree("HttpRequestHeaderMatchInput", "x-which", &[("one", &one), ("two", &two)]),
        );
    let per_route = format!(
        "typed_per_filter_config: {{first: {{\"@type\": {MATCHING}.ExtensionWithMatcherPerRoute, xds_matcher: {}}}}}",
        tree("HttpRequestHeaderMatchInput", "x-other", &[("\"yes\"", skip)])
    );
    let routes = format!(
        "{{match: {{prefix: /own}}, route: {{cluster: app}}, {per_route}}}, {{match: {{prefix: /}}, route: {{cluster: app}}}}"
    );
    let app = h2::serve(|asked| Message {
        head: h2::map(&[("x-answer", asked.header("x-want"))]),
        body: line("", asked, &["x-mark"]).into_bytes(),
        ..Message::default()
    });
    let proxy = Proxy::ready(&bootstrap(&filters, &routes, &cluster("app", &[app], HTTP2)), &[]);
    let mut lines = Vec::new();
    for (path, head) in [
        ("/", &[][..]),
        ("/", &[("x-skip", "yes")]),
        ("/", &[("x-skip", "no")]),
        ("/", &[("x-want", "skip")]),
        ("/", &[("x-which", "one")]),
        ("/", &[("x-which", "two"), ("x-skip", "yes")]),
        ("/", &[("x-which", "three")]),
        ("/own", &[("x-skip", "yes")]),
        ("/own", &[("x-other", "yes")]),
    ] {
        let answer = h2::call(proxy.listener("l"), "GET", path, head, &[], &[]);
        lines.push(line(&format!("{path} {head:?}"), &answer, &["x-mark"]));
    }
    agrees("matchers", &lines);
}
