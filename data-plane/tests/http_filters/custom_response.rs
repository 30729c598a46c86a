//! Other answers in place of some. What is expected was written by Envoy.

use serde_json::{Value, json};

use super::h2::{self, Message};
use super::setup::{HTTP2, agrees, bootstrap, cluster, filter, line};
use super::support::{Proxy, wait};

const POLICIES: &str = "type.googleapis.com/envoy.extensions.http.custom_response";

fn header(key: &str, value: &str) -> Value {
    json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
}

fn policy(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("{POLICIES}.{kind}").into();
    json!({"action": {"name": "policy", "typed_config": fields}})
}

fn local(fields: Value) -> Value {
    policy("local_response_policy.v3.LocalResponsePolicy", fields)
}

fn redirect(fields: Value) -> Value {
    policy("redirect_policy.v3.RedirectPolicy", fields)
}

fn policies() -> Value {
    let page = "http://pages.test/page?x=1";
    json!({"matcher_tree": {
    "input": {"name": "status", "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput"}},
    "exact_match_map": {"map": {
        "401": local(json!({"body": {"inline_string": "not you"}, "status_code": 499,
            "response_headers_to_add": [header("x-added", "by the policy")]})),
        "402": local(json!({"body_format": {"json_format": {"code": "%RESPONSE_CODE%", "said": "%LOCAL_REPLY_BODY%"}}})),
        "403": redirect(json!({"uri": page, "status_code": 299, "response_headers_to_add": [header("x-added", "by the policy")],
            "request_headers_to_add": [header("x-asked", "%REQ(:path)%")]})),
        "404": redirect(json!({"uri": page})),
        "405": redirect(json!({"uri": "http://pages.test/fails", "status_code": 299,
            "response_headers_to_add": [header("x-added", "by the policy")]})),
        "406": redirect(json!({"uri": "http://pages.test/nowhere"})),
        "407": redirect(json!({"redirect_action": {"host_redirect": "other.test", "path_redirect": "/page?y=2"}})),
        "408": redirect(json!({"redirect_action": {"https_redirect": true, "path_redirect": "/page"}})),
        "409": local(json!({"body": {"inline_string": "kept"}, "preserve_response_code_details": true})),
        "410": redirect(json!({"uri": "http://pages.test/refused"})),
        "411": redirect(json!({"uri": "http://pages.test/created", "status_code": 299})),
        "412": local(json!({"body": {"inline_string": "set"}, "response_code_details": "by_the_policy"})),
        "413": local(json!({"response_headers_to_add": [header("x-added", "alone")]})),
        "414": redirect(json!({"uri": "http://pages.test"})),
    }}}})
}

fn start() -> Proxy {
    let app = h2::serve(|asked| {
        let names =
            ["content-length", "x-asked", "x-envoy-original-url", "x-forwarded-proto", "x-mine", "x-pass"];
        let told = line(&format!("{} {} {}", asked.method, asked.host, asked.path), asked, &names);
        let status = match asked.path.split('?').next().unwrap() {
            "/page" | "/" => 200,
            "/fails" => 500,
            "/refused" => 403,
            "/created" => 201,
            path => path.trim_start_matches('/').parse().unwrap_or(200),
        };
        let head = h2::map(&[("x-of", "upstream"), ("x-added", "by upstream")]);
        Message { status, head, body: told.into_bytes(), ..Message::default() }
    });
    let routes = "{match: {path: /nowhere}, name: nowhere, direct_response: {status: 404}}, \
        {match: {prefix: /direct/}, direct_response: {status: 403, body: {inline_string: direct}}}, \
        {match: {safe_regex: {regex: \"/(page|fails|refused|created|[0-9]+)\"}}, route: {cluster: app}}, \
        {match: {path: /}, route: {cluster: app}}";
    let filters = filter(
        "first",
        "header_mutation.v3.HeaderMutation, mutations: {request_mutations: [{append: {header: {key: x-pass, value: \"1\"}}}], \
         response_mutations: [{append: {header: {key: x-back, value: \"1\"}}}]}",
    ) + &filter(
        "custom",
        &format!("custom_response.v3.CustomResponse, custom_response_matcher: {}", policies()),
    );
    Proxy::ready(&bootstrap(&filters, routes, &cluster("app", &[app], HTTP2)), &[])
}

#[test]
fn answers_are_as_envoys() {
    let proxy = start();
    let (mut lines, mut logged) = (Vec::new(), 0);
    let paths =
        (400..=414).map(|status| format!("/{status}")).chain(["/direct/x".to_owned(), "/none".to_owned()]);
    for path in paths {
        for (method, body) in [("GET", ""), ("POST", "payload")] {
            // Envoy never answers it.
            if (method, &*path) == ("POST", "/none") {
                continue;
            }
            let answer =
                h2::call(proxy.listener("l"), method, &path, &[("x-mine", "1")], &[body.as_bytes()], &[]);
            let names = ["content-length", "content-type", "x-added", "x-back", "x-of"];
            lines.push(line(&format!("{method} {path}"), &answer, &names));
            let log = wait("the log", || {
                let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
                let lines: Vec<_> = text.lines().skip(logged).map(ToOwned::to_owned).collect();
                let last = lines.last()?;
                (!last.contains("internal_redirect")).then_some(lines)
            });
            logged += log.len();
            lines.extend(log.iter().map(|line| format!("  {line}")));
        }
    }
    for name in ["custom_response_invalid_uri", "custom_response_redirect_no_route", "downstream_rq_total"] {
        lines.push(format!("{name}: {:?}", proxy.stat(&format!("http.in.{name}"))));
    }
    agrees("custom_response", &lines);
}
