//! Scripts of `envoy.filters.http.lua`, through the real binary. What is expected here is what Envoy does.
#![cfg(feature = "lua")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use support::{Backend, Proxy, call};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn cluster(name: &str, to: Option<SocketAddr>) -> Value {
    let endpoints: Vec<Value> = to
        .map(|to| json!({"endpoint": {"address": {"socket_address": {"address": to.ip(), "port_value": to.port()}}}}))
        .into_iter()
        .collect();
    json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment":
        {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}})
}

/// A bootstrap with this configuration of the filter `lua`, these routes, and the clusters `app` and `none`.
fn bootstrap(mut lua: Value, routes: &Value, app: SocketAddr) -> String {
    lua["@type"] = format!("{FILTERS}.lua.v3.Lua").into();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_protocol_options": {"enable_trailers": true},
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes,
            "virtual_clusters": [{"name": "posts", "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]}],
            "metadata": {"filter_metadata": {"lua": {"of": "host"}}}}]},
        "http_filters": [
            {"name": "lua", "typed_config": lua},
            {"name": "router", "typed_config": {"@type": format!("{FILTERS}.router.v3.Router")}},
        ],
    });
    let resources = json!({
        "listeners": [{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [cluster("app", Some(app)), cluster("none", None)]});
    format!("node: {{id: n, cluster: c}}\nstatic_resources: {resources}\n")
}

fn route() -> Value {
    json!([
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 204}, "name": "direct"},
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}, "name": "all",
            "metadata": {"filter_metadata": {"lua": {"n": 1.5, "list": [1, "x"]}}}},
    ])
}

/// A proxy with this script, and the server behind it.
fn run(script: &str) -> (Proxy, Backend) {
    let app = Backend::start("hello");
    let lua = json!({"default_source_code": {"inline_string": script}, "filter_context": {"who": "filter"}});
    let proxy = Proxy::ready(&bootstrap(lua, &route(), app.address), &[]);
    (proxy, app)
}

/// What goes over a connection, both ways.
fn raw(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(to: SocketAddr, body: &str) -> String {
    let head = "POST /p HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-a: 1\r\nx-a: 2\r\ncontent-length";
    raw(to, &format!("{head}: {}\r\n\r\n{body}", body.len()))
}

/// A script that checks, and tells what did not hold in the header `failed`.
fn checks(lines: &[(&str, &str)]) -> String {
    let mut script = String::from(
        "function envoy_on_request(h)\n local failed = {}\n \
         local function is(got, want, what) if got ~= want then \
         failed[#failed + 1] = what .. ' is ' .. tostring(got) end end\n \
         local function fails(call, want) local ok, text = pcall(call) \
         if ok or not text:find(want, 1, true) then failed[#failed + 1] = tostring(text) .. ', not ' .. want end end\n",
    );
    for (expression, want) in lines {
        match want.strip_prefix("error: ") {
            Some(error) => {
                writeln!(script, " fails(function() local x = {expression}; return x end, {error:?})")
                    .unwrap();
            }
            None => writeln!(script, " is({expression}, {want}, [==[{expression}]==])").unwrap(),
        }
    }
    script + " h:headers():add('failed', table.concat(failed, '; '))\nend\n"
}

#[track_caller]
fn all_hold(lines: &[(&str, &str)]) {
    let (proxy, app) = run(&checks(lines));
    post(proxy.listener("l"), "world");
    let request = app.next();
    assert!(request.contains("failed: \r\n") || request.contains("failed:\r\n"), "{request}");
}

#[test]
fn headers_are_read() {
    all_hold(&[
        ("h:headers():get('x-a')", "'1,2'"),
        ("h:headers():get('X-A')", "'1,2'"),
        ("h:headers():get('nope')", "nil"),
        ("h:headers():getAtIndex('x-a', 1)", "'2'"),
        ("h:headers():getAtIndex('x-a', 2)", "nil"),
        ("h:headers():getAtIndex('x-a', -1)", "nil"),
        ("h:headers():getNumValues('x-a')", "2"),
        ("h:headers():get(':path')", "'/p'"),
        ("h:headers():get(':method')", "'POST'"),
        ("h:headers():get(':authority')", "'test'"),
        (
            "(function() local n = 0; for k, v in pairs(h:headers()) do if k == 'x-a' then n = n + v end end return n end)()",
            "3",
        ),
    ]);
}

#[test]
fn headers_stay_while_they_are_walked_through() {
    let (proxy, _app) = run("function envoy_on_request(h) local _, text = pcall(function() \
         for k in pairs(h:headers()) do h:headers():add('x', 'y') end end) \
         h:respond({[':status'] = '200'}, text) end");
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert!(answer.body.ends_with("header map cannot be modified while iterating"), "{}", answer.body);
}

#[test]
fn streams_and_routes_are_looked_at() {
    all_hold(&[
        ("h:streamInfo():protocol()", "'HTTP/1.1'"),
        ("h:streamInfo():routeName()", "'all'"),
        ("h:streamInfo():virtualClusterName()", "'posts'"),
        ("h:streamInfo():downstreamLocalAddress():match('^127.0.0.1:%d+$') ~= nil", "true"),
        ("h:streamInfo():downstreamDirectRemoteAddress():match('^127.0.0.1:%d+$') ~= nil", "true"),
        ("h:streamInfo():requestedServerName()", "''"),
        ("h:streamInfo():downstreamSslConnection()", "nil"),
        ("h:connection():ssl()", "nil"),
        ("h:streamInfo():filterState():get('x')", "nil"),
        ("h:streamInfo():dynamicMetadata():set('a', 'k', {x = {1, 2}, y = 'z'})", "nil"),
        ("h:streamInfo():dynamicMetadata():get('a').k.x[2]", "2"),
        ("h:streamInfo():dynamicMetadata():get('b')", "nil"),
        (
            "(function() for k, v in pairs(h:streamInfo():dynamicMetadata()) do return k .. v.k.y end end)()",
            "'az'",
        ),
        (
            "h:streamInfo():dynamicMetadata():set('a', 'k', print)",
            "error: unexpected type 'function' in dynamicMetadata",
        ),
        ("h:metadata():get('n')", "1.5"),
        ("h:metadata():get('list')[2]", "'x'"),
        ("h:route():metadata():get('n')", "1.5"),
        ("h:virtualHost():metadata():get('of')", "'host'"),
        ("h:filterContext():get('who')", "'filter'"),
        ("h:base64Escape('foo?')", "'Zm9vPw=='"),
        ("#h:timestampString(EnvoyTimestampResolution.MICROSECOND)", "16"),
        ("h:timestamp() > 1.7e12", "true"),
        ("h:timestamp(EnvoyTimestampResolution.MICROSECOND)", "error: timestamp format must be MILLISECOND."),
        ("h:setUpstreamOverrideHost('abc')", "error: host is not a valid IP address"),
        ("h:connectionStreamInfo():dynamicMetadata():get('x')", "nil"),
        ("h:importPublicKey('abc', 3):get()", "nil"),
        ("table.pack(1, nil, 3).n", "3"),
        ("select('#', pcall(function() end))", "1"),
        ("h:nothing()", "error: attempt to call method 'nothing'"),
    ]);
}

#[test]
fn bodies_are_held_and_replaced() {
    all_hold(&[
        ("h:body():length()", "5"),
        ("h:body():getBytes(1, 3)", "'orl'"),
        ("h:body():getBytes(1, 5)", "error: index/length must be >= 0"),
        ("h:bodyChunks()", "error: cannot call bodyChunks after body processing has begun"),
        ("h:trailers()", "nil"),
    ]);
    let (proxy, app) = run("function envoy_on_request(h) h:body():setBytes('another body') end \
         function envoy_on_response(h) local b = h:body() b:setBytes(b:getBytes(0, 4) .. '!') end");
    let answer = post(proxy.listener("l"), "world");
    let request = app.next();
    assert!(
        request.contains("content-length: 12\r\n") && request.ends_with("\r\n\r\nanother body"),
        "{request}"
    );
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\nhell!"), "{answer}");
    assert_eq!(proxy.stat("http.in.lua.executions"), Some(2));
    assert_eq!(proxy.stat("http.in.lua.errors"), None);
}

#[test]
fn bodies_pass_by_in_chunks_with_their_trailers() {
    let (proxy, app) = run("function envoy_on_request(h) h:headers():remove('x-a') \
         for c in h:bodyChunks() do if c:length() > 0 then c:setBytes('<' .. c:getBytes(0, c:length()) .. '>') end end end \
         function envoy_on_response(h) local n = 0 \
         for c in h:bodyChunks() do n = n + c:length() \
         local ok, text = pcall(function() h:headers():add('late', 'no') end) \
         if not ok and text:find('can no longer be modified', 1, true) then c:setBytes('HELLO') end end \
         local ok, text = pcall(function() local b = h:body() end) h:logInfo(text) end");
    let answer = raw(
        proxy.listener("l"),
        "POST /p HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert!(answer.ends_with("HELLO"), "{answer}");
    let request = app.next();
    assert!(request.contains("transfer-encoding: chunked"), "{request}");
    assert_eq!(proxy.stat("http.in.lua.errors"), None);
    let (proxy, app) = run("function envoy_on_request(h) local t = h:trailers() \
         h:streamInfo():dynamicMetadata():set('t', 'v', t:get('x-t')) t:add('x-u', t:get('x-t')) end \
         function envoy_on_response(h) h:headers():add('seen', h:streamInfo():dynamicMetadata():get('t').v) end");
    let answer = raw(
        proxy.listener("l"),
        "POST /p HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nx-t: 7\r\n\r\n",
    );
    drop(app);
    assert!(answer.contains("seen: 7\r\n"), "{answer}");
}

#[test]
fn requests_are_answered_and_routed_anew() {
    let (proxy, _app) = run("function envoy_on_request(h) \
         h:respond({[':status'] = 403, ['x-r'] = {'1', '2'}, ['content-type'] = 'text/html'}, 'no \\0') \
         error('never') end \
         function envoy_on_response(h) h:headers():add('seen', h:headers():get(':status')) \
         h:headers():setHttp1ReasonPhrase('Not Today') end");
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (403, "no \0"));
    for line in ["HTTP/1.1 403 Not Today", "x-r: 1\r\nx-r: 2", "content-type: text/html", "seen: 403"] {
        assert!(answer.head.contains(line), "{}", answer.head);
    }
    assert_eq!(proxy.stat("http.in.lua.errors"), None);
    let (proxy, _app) = run("function envoy_on_request(h) h:headers():replace(':path', '/direct') \
         h:streamInfo():dynamicMetadata():set('r', 'name', h:streamInfo():routeName()) end \
         function envoy_on_response(h) h:headers():add('name', h:streamInfo():dynamicMetadata():get('r').name) end");
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!(answer.status, 204);
    assert!(answer.head.contains("name: direct"), "{}", answer.head);
}

#[test]
fn others_are_asked() {
    let (proxy, app) = run("function envoy_on_request(h) \
         local me = {[':method'] = 'POST', [':path'] = '/ask', [':authority'] = 'me', ['x-l'] = {'1', '2'}} \
         local headers, body = h:httpCall('app', me, 'question', 5000) \
         h:headers():add('x-asked', headers[':status'] .. body) \
         headers, body = h:httpCall('none', me, nil, {timeout_ms = 1000}) \
         h:headers():add('x-none', headers[':status'] .. body) \
         local ok, text = pcall(function() return h:httpCall('nah', me, nil, 5) end) \
         h:headers():add('x-nah', text) \
         h:httpCall('app', {[':method'] = 'GET', [':path'] = '/later', [':authority'] = 'me'}, nil, 5000, true) end");
    let answer = post(proxy.listener("l"), "world");
    assert!(answer.ends_with("hello"), "{answer}");
    let asked = app.next();
    assert!(asked.starts_with("POST /ask HTTP/1.1\r\n") && asked.ends_with("\r\n\r\nquestion"), "{asked}");
    for line in ["host: me", "x-l: 1\r\nx-l: 2", "content-length: 8", "x-envoy-internal: true"] {
        assert!(asked.contains(line), "{asked}");
    }
    // The call that nobody waits for may come before the request or after it.
    let (one, other) = (app.next(), app.next());
    let (request, later) = if one.contains("/later") { (other, one) } else { (one, other) };
    assert!(later.starts_with("GET /later"), "{later}");
    assert!(request.contains("x-asked: 200hello\r\n"), "{request}");
    assert!(request.contains("x-none: 503no healthy upstream\r\n"), "{request}");
    assert!(request.contains("http call cluster invalid. Must be configured\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nworld"), "{request}");
}

#[test]
fn a_script_that_fails_or_never_ends_lets_requests_pass() {
    let (proxy, app) = run("kept = nil \
         function envoy_on_request(h) \
         local what = h:headers():get('what') \
         if what == 'error' then h:headers():add('x-before', '1') error({code = 1}) \
         elseif what == 'loop' then while true do pcall(function() while true do end end) end \
         elseif what == 'memory' then local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end \
         elseif what == 'yield' then coroutine.yield(1) \
         elseif what == 'keep' then kept = h:headers() \
         elseif what == 'use' then kept:get('what') end end");
    let address = proxy.listener("l");
    for (count, what) in ["error", "loop", "memory", "yield", "keep", "use"].iter().enumerate() {
        let answer = call(address, "GET", "/", &[("what", what)]).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "hello"), "{what}");
        let request = app.next();
        assert_eq!(request.contains("x-before: 1"), *what == "error", "{request}");
        // `keep` does nothing wrong.
        let errors = if count < 4 { count + 1 } else { count };
        assert_eq!(proxy.stat("http.in.lua.errors"), Some(errors as i64), "{what}");
    }
    assert_eq!(call(address, "GET", "/", &[]).unwrap().status, 200);
}

#[test]
fn routes_choose_scripts() {
    let app = Backend::start("hello");
    let per_route = |path: &str, config: Value| {
        let mut config = config;
        config["@type"] = format!("{FILTERS}.lua.v3.LuaPerRoute").into();
        json!({"match": {"prefix": path}, "route": {"cluster": "app"}, "typed_per_filter_config": {"lua": config}})
    };
    let script = |name: &str| {
        format!(
            "function envoy_on_request(h) h:headers():add('x-ran', '{name}' .. tostring(h:filterContext():get('who'))) end"
        )
    };
    let routes = json!([
        per_route("/off", json!({"disabled": true})),
        per_route("/named", json!({"name": "two"})),
        per_route("/unknown", json!({"name": "three"})),
        per_route("/own", json!({"source_code": {"inline_string": script("own")}, "filter_context": {"who": "route"}})),
        per_route("/context", json!({"filter_context": {}})),
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
    ]);
    let lua = json!({"inline_code": script("one"), "source_codes": {"two": {"inline_string": script("two")}},
        "filter_context": {"who": "filter"}, "stat_prefix": "mine"});
    let proxy = Proxy::ready(&bootstrap(lua, &routes, app.address), &[]);
    for (path, ran) in [
        ("/", "onefilter"),
        ("/off", ""),
        ("/named", "twofilter"),
        ("/unknown", ""),
        ("/own", "ownroute"),
        ("/context", "onenil"),
    ] {
        assert_eq!(call(proxy.listener("l"), "GET", path, &[]).unwrap().status, 200);
        let request = app.next();
        let line = request.lines().find_map(|line| line.strip_prefix("x-ran: ")).unwrap_or_default();
        assert_eq!(line, ran, "{path}");
    }
    assert_eq!(proxy.stat("http.in.lua.mine.executions"), Some(4));
}

#[test]
fn a_script_that_does_not_load_is_refused_by_field() {
    for (script, why) in [
        ("function envoy_on_request(h) bad bad end", ":1: '=' expected near 'bad'"),
        ("error('at the top')", ":1: at the top"),
        ("while true do end", "more than 50000000 instructions"),
        ("require('nowhere')", "module 'nowhere' not found"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bootstrap.yaml");
        let lua = json!({"default_source_code": {"inline_string": script}});
        std::fs::write(&file, bootstrap(lua, &route(), ([127, 0, 0, 1], 1).into())).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
            .args(["--mode", "validate", "-c", file.to_str().unwrap()])
            .output()
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{script}");
        assert!(text.contains("default_source_code: script load error: ") && text.contains(why), "{text}");
    }
}
