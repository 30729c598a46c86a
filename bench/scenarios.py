"""The paths that are measured: for each, the Envoy configurations of the proxies in it, and the load that goes in."""

from dataclasses import dataclass, field

BACKEND = 21080  # HTTP/1.1
BACKEND_H2 = 21081  # HTTP/2 without TLS
ENTRY = 21000
PEER = 21006

TYPES = "type.googleapis.com/envoy.extensions"


@dataclass
class Scenario:
    """One path. `hops` has a bootstrap for each proxy process, the entry first."""

    name: str
    title: str
    hops: list
    load: str = "h1"  # what the client speaks: h1 or h2
    path: str = "/"
    haproxy: str = ""  # the same path as a haproxy configuration, where there is one
    ports: list = field(default_factory=lambda: [ENTRY])
    ours: list = field(default_factory=list)  # the hops as sail-proxy has them, where it does more than Envoy can
    bare: list = field(default_factory=list)  # the port and flags of the bare loop for each hop, where it has the path


def http_manager(cluster, extra_filters=()):
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
                    }
                ]
            },
            "http_filters": [
                *extra_filters,
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
                },
            ],
        },
    }


def tcp_proxy(cluster):
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench",
            "cluster": cluster,
        },
    }


def policies(count):
    """An RBAC filter that allows GET, by the last of `count` policies."""
    never = {"permissions": [{"url_path": {"path": {"prefix": "/never/"}}}], "principals": [{"any": True}]}
    get = {"permissions": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}], "principals": [{"any": True}]}
    rules = {f"policy-{index}": never for index in range(count - 1)}
    rules["policy-last"] = get
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {"@type": f"{TYPES}.filters.http.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": rules}},
    }


def http_filter(name, kind, **settings):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{kind}", **settings}}


def sidecar(cluster, istio):
    """What an Istio sidecar has before its router: policies, fault, CORS, gRPC statistics and an access log; Envoy has no
    metadata exchange and no Istio statistics of its own, so that these are there for sail-proxy alone."""
    filters = [
        policies(10),
        http_filter("envoy.filters.http.grpc_stats", "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"),
        http_filter("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault"),
        http_filter("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors"),
    ]
    if istio:
        headers = [{"istio_headers": {}}]
        exchange = {"downstream_discovery": headers, "downstream_propagation": headers}
        filters.insert(0, http_filter("istio.metadata_exchange", "io.istio.http.peer_metadata.Config", **exchange))
        filters.append(http_filter("istio.stats", "stats.PluginConfig"))
    manager = http_manager(cluster, filters)
    line = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% " \
        "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% \"%REQ(X-REQUEST-ID)%\" %UPSTREAM_HOST% %UPSTREAM_CLUSTER%\n"
    log = {
        "@type": f"{TYPES}.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/null",
        "log_format": {"text_format_source": {"inline_string": line}},
    }
    manager["typed_config"]["access_log"] = [{"name": "file", "typed_config": log}]
    return manager


def socket(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(port, network_filter, transport=None):
    chain = {"filters": [network_filter]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": f"listener-{port}", "address": socket(port), "filter_chains": [chain]}


def cluster(name, port, transport=None, http2=False):
    unlimited = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    result = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [unlimited]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(port)}}]}],
        },
    }
    if transport:
        result["transport_socket"] = transport
    if http2:
        key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        result["typed_extension_protocol_options"] = {
            key: {"@type": f"type.googleapis.com/{key}", "explicit_http_config": {"http2_protocol_options": {}}}
        }
    return result


def tls(kind, folder, who, alpn):
    certificate = {
        "certificate_chain": {"filename": f"{folder}/{who}.pem"},
        "private_key": {"filename": f"{folder}/{who}.key"},
    }
    config = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.{kind}",
        "common_tls_context": {
            "alpn_protocols": alpn,
            "tls_certificates": [certificate],
            "validation_context": {"trusted_ca": {"filename": f"{folder}/ca.pem"}},
        },
    }
    if kind == "DownstreamTlsContext":
        config["require_client_certificate"] = True
    else:
        config["sni"] = "outbound_.80_._.server.default.svc.cluster.local"
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def bootstrap(number, listeners, clusters):
    return {
        "node": {"id": f"bench-{number}", "cluster": "bench"},
        "admin": {"address": socket(21900 + number)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def one_hop(network_filter, upstream):
    return [bootstrap(0, [listener(ENTRY, network_filter)], [upstream])]


def two_hops(folder, outer, inner, alpn, http2=False):
    """A client's sidecar and a server's, mutual TLS between them."""
    client, server = tls("UpstreamTlsContext", folder, "client", alpn), tls("DownstreamTlsContext", folder, "server", alpn)
    return [
        bootstrap(0, [listener(ENTRY, outer)], [cluster("peer", PEER, client, http2)]),
        bootstrap(1, [listener(PEER, inner, server)], [cluster("app", BACKEND)]),
    ]


def bare(port, upstream, protocol, to=None, **tls_folders):
    flags = ["--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}", "--from", protocol, "--to", to or protocol]
    for side, folder in tls_folders.items():
        flags += [f"--{side}-tls", str(folder)]
    return port, flags


def bare_sidecars(folder, protocol, between=None):
    between = between or protocol
    return [
        bare(ENTRY, PEER, protocol, between, dial=folder),
        bare(PEER, BACKEND, between, protocol, serve=folder),
    ]


HAPROXY = f"""
global
  nbthread 1
  maxconn 8192
defaults
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend entry
  mode MODE
  bind 127.0.0.1:{ENTRY}
  default_backend app
backend app
  mode MODE
  server app 127.0.0.1:{BACKEND} maxconn 8000
"""


def scenarios(folder):
    """Every scenario, in the order of the table."""
    app, app_h2 = cluster("app", BACKEND), cluster("app", BACKEND_H2, http2=True)
    http, http_peer = http_manager("app"), http_manager("peer")
    with_policies = http_manager("app", [policies(10)])
    bare_tcp = [bare(ENTRY, BACKEND, "tcp")]
    return [
        Scenario("h1", "HTTP/1.1, one hop", one_hop(http, app), haproxy=HAPROXY.replace("MODE", "http"), bare=[bare(ENTRY, BACKEND, "http1")]),
        Scenario("h1-rbac", "HTTP/1.1, one hop, ten RBAC policies", one_hop(with_policies, app)),
        Scenario(
            "istio",
            "HTTP/1.1, one hop, a sidecar's filters",
            one_hop(sidecar("app", istio=False), app),
            ours=one_hop(sidecar("app", istio=True), app),
        ),
        Scenario(
            "h1-mtls",
            "HTTP/1.1 over mTLS, two sidecars",
            two_hops(folder, http_peer, http, ["http/1.1"]),
            bare=bare_sidecars(folder, "http1"),
        ),
        Scenario(
            "h2-mtls",
            "HTTP/2 over mTLS, two sidecars",
            two_hops(folder, http_peer, http, ["h2"], http2=True),
            bare=bare_sidecars(folder, "http1", "http2"),
        ),
        Scenario("h2", "HTTP/2 in and out", one_hop(http, app_h2), load="h2", bare=[bare(ENTRY, BACKEND_H2, "http2")]),
        Scenario("tcp", "TCP, one hop", one_hop(tcp_proxy("app"), app), haproxy=HAPROXY.replace("MODE", "tcp"), bare=bare_tcp),
        Scenario("tcp-1m", "TCP, one hop, 1 MiB answers", one_hop(tcp_proxy("app"), app), path="/big", bare=bare_tcp),
        Scenario(
            "tcp-mtls",
            "TCP over mTLS, two sidecars",
            two_hops(folder, tcp_proxy("peer"), tcp_proxy("app"), ["istio"]),
            bare=bare_sidecars(folder, "tcp"),
        ),
    ]
