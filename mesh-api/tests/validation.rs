//! Specs of every kind, and what is said about them.

use mesh_api::{Error, Kind, check};
use serde_json::{Value, json};

/// Everything said about a spec of a kind: errors, or warnings where there is no error.
fn findings(kind: Kind, spec: &str) -> Vec<String> {
    let spec: Value = serde_norway::from_str(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    let info = kind.info();
    let manifest = json!({
        "apiVersion": format!("{}/{}", info.group, info.versions[0]),
        "kind": info.name,
        "metadata": {"name": "x", "namespace": "y"},
        "spec": spec,
    });
    match check(&manifest) {
        Ok((_, warnings)) => warnings.iter().map(|w| format!("warning {w}")).collect(),
        Err(Error::Invalid { fields, .. }) => fields.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn is(kind: Kind, spec: &str, expect: &[&str]) {
    assert_eq!(findings(kind, spec), expect, "{spec}");
}

#[test]
fn destination_rules() {
    let is = |spec: &str, expect: &[&str]| is(Kind::DestinationRule, spec, expect);
    is("{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}", &[]);
    is("{host: '*.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}", &[]);
    is("{host: ''}", &["spec.host: a host must not be empty"]);
    is("{host: a, subsets: [{name: v1}, {name: v1}]}", &["spec.subsets[1].name: \"v1\" is defined twice"]);
    is(
        "{host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}}",
        &["spec.trafficPolicy.tls.privateKey: must be set for MUTUAL, or credentialName"],
    );
    is(
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x, useSourceIp: true}}}}",
        &["spec.trafficPolicy.loadBalancer.consistentHash: \
           exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName must be set"],
    );
    is(
        "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101, consecutive5xxErrors: 7}}}",
        &["spec.trafficPolicy.outlierDetection.maxEjectionPercent: must be between 0 and 100"],
    );
    is(
        "{host: a, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1us}}}}",
        &["spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be at least 1ms"],
    );
    is(
        "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: LEAST_CON}}]}}",
        &[
            "spec.trafficPolicy.portLevelSettings[0].loadBalancer.simple: expected one of UNSPECIFIED, LEAST_CONN, \
           RANDOM, PASSTHROUGH, ROUND_ROBIN, LEAST_REQUEST, got the string \"LEAST_CON\"",
        ],
    );
}

#[test]
fn gateways() {
    let is = |spec: &str, expect: &[&str]| is(Kind::Gateway, spec, expect);
    let server = |port: &str, rest: &str| {
        format!("{{selector: {{istio: ingressgateway}}, servers: [{{port: {port}, hosts: ['*'] {rest}}}]}}")
    };
    let https = "{number: 443, name: https, protocol: HTTPS}";
    is(&server("{number: 80, name: http, protocol: HTTP}", ""), &[]);
    is(&server(https, ""), &["spec.servers[0].tls: must be set for the protocol HTTPS"]);
    is(&server(https, ", tls: {mode: SIMPLE, credentialName: c}"), &[]);
    is(
        &server(https, ", tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k}"),
        &["spec.servers[0].tls.caCertificates: must be set for MUTUAL"],
    );
    is(
        &server("{number: 0, protocol: HTTPX}", ""),
        &[
            "spec.servers[0].port.number: must be a port between 1 and 65535",
            "spec.servers[0].port.protocol: \"HTTPX\" is no protocol: use one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, \
             GRPC-WEB-TEXT, TCP, TLS, UDP, MONGO, MYSQL, REDIS, HBONE, HTTP_PROXY",
        ],
    );
    is(
        &server("{number: 80, protocol: HTTP}", ", tls: {mode: SIMPLE, credentialName: c}"),
        &["spec.servers[0].tls: only httpsRedirect may be set for the protocol HTTP"],
    );
    is("{selector: {a: b}}", &["spec.servers: must be set"]);
}

#[test]
fn service_entries() {
    let is = |spec: &str, expect: &[&str]| is(Kind::ServiceEntry, spec, expect);
    let port = "ports: [{number: 443, name: tls, protocol: TLS}]";
    is(&format!("{{hosts: [a.example.com], {port}, resolution: DNS}}"), &[]);
    is(&format!("{{hosts: ['*.example.com'], {port}, resolution: NONE}}"), &[]);
    is(
        &format!("{{hosts: ['*.example.com'], {port}, resolution: DNS}}"),
        &["spec.hosts: \"*.example.com\" cannot be resolved: set endpoints, or the resolution NONE"],
    );
    is(
        &format!("{{hosts: [a.b], {port}, resolution: STATIC, endpoints: [{{address: c.d}}]}}"),
        &["spec.endpoints[0].address: \"c.d\" is not an IP address, as STATIC needs"],
    );
    is(
        &format!("{{hosts: [a.b], {port}, endpoints: [{{address: 1.2.3.4}}]}}"),
        &["spec.endpoints: must not be set for the resolution NONE: the client's address is used"],
    );
    is(
        "{hosts: ['*']}",
        &[
            "spec.hosts[0]: \"*\" cannot be a service: name the hosts (\"*.example.com\")",
            "spec.ports: must be set",
        ],
    );
    is(
        "{hosts: [a.b], ports: [{number: 80, name: a}, {number: 80, name: b}], resolution: DNS}",
        &["spec.ports[1].number: is used by another port already"],
    );
}

#[test]
fn sidecars() {
    let is = |spec: &str, expect: &[&str]| is(Kind::Sidecar, spec, expect);
    is("{egress: [{hosts: ['./*', 'istio-system/*']}]}", &[]);
    is(
        "{egress: [{hosts: [reviews]}]}",
        &[
            "spec.egress[0].hosts[0]: \"reviews\" must be namespace/host (\"./host\" for this namespace, \"*/host\" for any)",
        ],
    );
    is(
        "{ingress: [{port: {number: 80, protocol: HTTP, name: x}, defaultEndpoint: '10.0.0.1:80'}]}",
        &["spec.ingress[0].defaultEndpoint: the address must be 127.0.0.1, 0.0.0.0, [::1] or [::]: \
           traffic cannot leave the pod here"],
    );
    is(
        "{egress: [{hosts: ['*/*']}, {port: {number: 80, protocol: HTTP}, hosts: ['*/*']}]}",
        &["spec.egress[0].port: must be set: only the last listener may go without"],
    );
}

#[test]
fn peer_and_request_authentications() {
    is(Kind::PeerAuthentication, "{mtls: {mode: STRICT}}", &[]);
    is(
        Kind::PeerAuthentication,
        "{portLevelMtls: {8080: {mode: DISABLE}}}",
        &["spec.portLevelMtls: needs a selector: ports belong to workloads"],
    );
    let rule = |fields: &str| format!("{{jwtRules: [{{{fields}}}]}}");
    is(Kind::RequestAuthentication, &rule("issuer: i, jwksUri: 'https://e.com/k'"), &[]);
    is(
        Kind::RequestAuthentication,
        &rule("issuer: i, jwksUri: e, jwks: '{}'"),
        &[
            "spec.jwtRules[0]: only one of jwks and jwksUri may be set",
            "spec.jwtRules[0].jwksUri: \"e\" is not an http or https URL",
            "spec.jwtRules[0].jwks: is not a JSON Web Key set ({\"keys\": […]})",
        ],
    );
}

#[test]
fn authorization_policies() {
    let is = |spec: &str, expect: &[&str]| is(Kind::AuthorizationPolicy, spec, expect);
    is("{}", &[]);
    is("{action: DENY}", &["spec.rules: must be set: without rules, DENY never applies"]);
    is("{action: CUSTOM, rules: [{}]}", &["spec.provider: must be set for the action CUSTOM"]);
    is(
        "{rules: [{from: [{source: {principals: ['cluster.local/ns/default/sa/sleep']}}], \
          to: [{operation: {methods: [GET], paths: [/info*, '/a/{*}/b', '/c/{**}']}}], \
          when: [{key: 'request.auth.claims[iss]', values: [x]}]}]}",
        &[],
    );
    is(
        "{rules: [{from: [{source: {}}]}]}",
        &["spec.rules[0].from[0].source: must not be empty: it would match everybody"],
    );
    is(
        "{rules: [{from: [{source: {ipBlocks: [x], serviceAccounts: [a], namespaces: [b]}}]}]}",
        &[
            "spec.rules[0].from[0].source.ipBlocks[0]: \"x\" is not an IP address or CIDR range",
            "spec.rules[0].from[0].source.serviceAccounts: cannot be used together with principals or namespaces",
        ],
    );
    is(
        "{rules: [{to: [{operation: {paths: ['/a/{**}/b/{**}'], ports: ['x']}}]}]}",
        &[
            "spec.rules[0].to[0].operation.paths[0]: \"/a/{**}/b/{**}\": {**} may stand once",
            "spec.rules[0].to[0].operation.ports[0]: \"x\" is not a port",
        ],
    );
    is(
        "{rules: [{when: [{key: request.header, values: [x]}]}]}",
        &["spec.rules[0].when[0].key: \"request.header\" is no attribute of a request"],
    );
}

#[test]
fn telemetry_and_the_rest() {
    is(
        Kind::Telemetry,
        "{tracing: [{randomSamplingPercentage: 10, customTags: {a: {literal: {value: b}}}}], \
          metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {a: {operation: REMOVE}}}]}], \
          accessLogging: [{filter: {expression: 'response.code >= 400'}}]}",
        &[],
    );
    is(
        Kind::Telemetry,
        "{metrics: [{overrides: [{tagOverrides: {a: {}}}]}]}",
        &["spec.metrics[0].overrides[0].tagOverrides[a].value: must be set for UPSERT"],
    );
    is(
        Kind::EnvoyFilter,
        "{configPatches: [{applyTo: CLUSTER, patch: {operation: MERGE}}]}",
        &["spec.configPatches[0].patch.value: must be set unless the operation is REMOVE"],
    );
    is(
        Kind::WasmPlugin,
        "{url: 'ftp://x'}",
        &["spec.url: the scheme \"ftp\" is none of oci, http, https, file"],
    );
    is(
        Kind::ProxyConfig,
        "{concurrency: 0, image: {imageType: nano}}",
        &["warning spec.image.imageType: is usually default, debug or distroless"],
    );
    is(Kind::WorkloadEntry, "{address: 10.0.0.1, labels: {app: x}, ports: {http: 80}}", &[]);
    is(
        Kind::WorkloadEntry,
        "{}",
        &["spec.address: must be set (only an entry with a network may go without)"],
    );
    is(
        Kind::WorkloadGroup,
        "{template: {ports: {http: 80}}, probe: {}}",
        &["spec.probe: exactly one of httpGet, tcpSocket, exec and grpc must be set"],
    );
    is(
        Kind::WorkloadGroup,
        "{template: {address: 10.0.0.1}}",
        &["warning spec.template.address: has no effect: each workload has its own"],
    );
}
