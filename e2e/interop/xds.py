#!/usr/bin/env python3
"""A stock Envoy and a gRPC client of another implementation under saild.

Runs in a network namespace of its own (`unshare --net`), as Envoy listens on the sidecar's ports:

    unshare --net python3 e2e/interop/xds.py --saild target/debug/saild

Both variants of xDS are tried. What is checked: everything is accepted, a changed endpoint and a removed service reach
Envoy, and Envoy reconnects to a restarted saild.
"""

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = "type.googleapis.com/envoy.config."
CDS, EDS = TYPES + "cluster.v3.Cluster", TYPES + "endpoint.v3.ClusterLoadAssignment"
LDS, RDS = TYPES + "listener.v3.Listener", TYPES + "route.v3.RouteConfiguration"
REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"
TIMEOUT = 30


def service(name, address):
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "selector": {"app": name}, "ports": [{"name": "http", "port": 9080}]},
    }


def pod(name, app, version, address):
    labels = {"app": app, "version": version, "security.istio.io/tlsMode": "istio"}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"serviceAccountName": "bookinfo-" + app, "containers": [{"name": app, "image": app}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }


def rules():
    return [
        {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "reviews"},
         "spec": {"host": "reviews", "subsets": [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "reviews"},
         "spec": {"hosts": ["reviews"], "http": [
             {"match": [{"headers": {"end-user": {"exact": "jason"}}}],
              "route": [{"destination": {"host": "reviews", "subset": "v2"}}]},
             {"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]}},
        {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "ratings"},
         "spec": {"selector": {"matchLabels": {"app": "ratings"}}, "rules": [
             {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/bookinfo-reviews"]}}],
              "to": [{"operation": {"methods": ["GET"]}}]}]}},
    ]


class Mesh:
    """A saild with a directory of manifests."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.objects = os.path.join(directory, "objects")
        os.mkdir(self.objects)
        self.put("namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        for index, app in enumerate(("reviews", "ratings", "details", "productpage")):
            self.put("service-" + app, service(app, f"10.96.0.{10 + index}"))
            self.put("pod-" + app, pod(app + "-v1", app, "v1", f"10.1.0.{10 + index}"))
        for index, rule in enumerate(rules()):
            self.put(f"rule-{index}", rule)
        self.process = None

    def put(self, name, manifest):
        beside = os.path.join(self.directory, "new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(manifest, file)
        os.rename(beside, os.path.join(self.objects, name + ".json"))

    def remove(self, name):
        os.remove(os.path.join(self.objects, name + ".json"))

    def start(self):
        log = open(os.path.join(self.directory, "saild.log"), "a", encoding="utf-8")
        command = [self.binary, "discovery", "--registry-dir", self.objects, "--state-dir", self.directory + "/state"]
        self.process = subprocess.Popen(command, cwd=self.directory, stderr=log, stdout=log)
        wait_for("saild serves", lambda: get("http://127.0.0.1:15014/ready") is not None)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def sync(self):
        return json.loads(get("http://127.0.0.1:15014/debug/syncz") or "[]")


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def wait_for(what, ask):
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {TIMEOUT} s")


def bootstrap(api_type):
    def cluster(name, address):
        http2 = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                 "explicit_http_config": {"http2_protocol_options": {}}}
        endpoint = {"endpoint": {"address": address}}
        return {
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        }

    def socket(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    return {
        "node": {"id": "sidecar~10.1.0.11~ratings-v1.default~default.svc.cluster.local", "cluster": "ratings.default",
                 "metadata": {"NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.30.0",
                              "LABELS": {"app": "ratings", "version": "v1"}}},
        "admin": {"address": socket(15000)},
        "dynamic_resources": {
            "ads_config": {"api_type": api_type, "transport_api_version": "V3", "set_node_on_first_message_only": True,
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": {"clusters": [
            cluster("xds-grpc", socket(15010)), cluster("sds-grpc", {"pipe": {"path": "sds.sock"}}),
            cluster("prometheus_stats", socket(15000)), cluster("agent", socket(15020)),
        ]},
    }


@contextlib.contextmanager
def envoy(binary, directory, api_type):
    path = os.path.join(directory, f"{api_type}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(bootstrap(api_type), file)
    log = open(os.path.join(directory, f"{api_type}.log"), "w", encoding="utf-8")
    command = [binary, "-c", path, "--disable-hot-restart", "-l", "warning", "--concurrency", "1"]
    process = subprocess.Popen(command, cwd=directory, stderr=log, stdout=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def dump(kind):
    text = get("http://127.0.0.1:15000/config_dump?include_eds") or '{"configs": []}'
    for config in json.loads(text)["configs"]:
        if config["@type"].endswith("." + kind):
            return config
    return {}


def clusters():
    found = dump("ClustersConfigDump")
    entries = found.get("dynamic_active_clusters", []) + found.get("dynamic_warming_clusters", [])
    assert not [entry for entry in entries if "error_state" in entry], entries
    return {entry["cluster"]["name"] for entry in entries}


def endpoints(cluster):
    found = dump("EndpointsConfigDump").get("dynamic_endpoint_configs", [])
    for entry in found:
        assignment = entry["endpoint_config"]
        if assignment["cluster_name"] == cluster:
            hosts = [host for group in assignment.get("endpoints", []) for host in group.get("lb_endpoints", [])]
            return {host["endpoint"]["address"]["socket_address"]["address"] for host in hosts}
    return set()


def synced(mesh):
    proxies = mesh.sync()
    if not proxies:
        return None
    errors = {key: value for key, value in proxies[0].items() if key.endswith("_error")}
    assert not errors, errors
    states = [proxies[0].get(kind + "_sync") for kind in ("cluster", "listener", "endpoint", "route")]
    return states == ["SYNCED"] * 4


def under_envoy(mesh, binary, api_type):
    with envoy(binary, mesh.directory, api_type) as process:
        wait_for("Envoy accepts everything", lambda: synced(mesh))
        assert REVIEWS in clusters(), clusters()
        assert REVIEWS.replace("||", "|v2|") in clusters()
        listeners = {entry["name"] for entry in dump("ListenersConfigDump")["dynamic_listeners"]}
        assert {"virtualOutbound", "virtualInbound"} <= listeners, listeners
        failed = [e for e in dump("ListenersConfigDump")["dynamic_listeners"] if "error_state" in e]
        assert not failed, failed

        mesh.put("pod-more", pod("reviews-v2", "reviews", "v2", "10.1.0.99"))
        wait_for("the new endpoint", lambda: endpoints(REVIEWS) == {"10.1.0.10", "10.1.0.99"})
        subset = REVIEWS.replace("||", "|v2|")
        wait_for("the new endpoint in its subset", lambda: endpoints(subset) == {"10.1.0.99"})
        mesh.remove("pod-more")
        wait_for("the endpoint is gone", lambda: endpoints(REVIEWS) == {"10.1.0.10"} and synced(mesh))
        mesh.remove("service-details")
        gone = "outbound|9080||details.default.svc.cluster.local"
        wait_for("the service is gone", lambda: gone not in clusters() and synced(mesh))
        mesh.put("service-details", service("details", "10.96.0.12"))
        wait_for("the service is back", lambda: gone in clusters() and synced(mesh))

        mesh.stop()
        mesh.put("service-late", service("late", "10.96.0.50"))
        mesh.start()
        late = "outbound|9080||late.default.svc.cluster.local"
        wait_for("Envoy is back", lambda: late in clusters() and synced(mesh))
        mesh.remove("service-late")
        wait_for("the late service is gone", lambda: late not in clusters() and synced(mesh))
        assert process.poll() is None
    wait_for("the connection is forgotten", lambda: mesh.sync() == [])


def compile_protos(directory):
    from grpc_tools import protoc

    out = os.path.join(directory, "py")
    os.mkdir(out)
    include = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    arguments = ["protoc", f"-I{HERE}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(arguments + ["discovery.proto", "secret.proto"]) == 0
    sys.path.insert(0, out)


def serve_secrets(directory):
    """The agent's place: a certificate and a root over SDS, which clusters and listeners wait for."""
    import concurrent.futures

    import discovery_pb2 as xds
    import grpc
    import secret_pb2 as sds
    import secret_pb2_grpc as service_of

    key, certificate = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /O=test "
    command += "-addext subjectAltName=URI:spiffe://cluster.local/ns/default/sa/bookinfo-ratings"
    subprocess.run(command.split() + ["-keyout", key, "-out", certificate], check=True, capture_output=True)

    def source(path):
        with open(path, "rb") as file:
            return sds.DataSource(inline_bytes=file.read())

    pair = sds.TlsCertificate(certificate_chain=source(certificate), private_key=source(key))
    root = sds.CertificateValidationContext(trusted_ca=source(certificate))

    class Secrets(service_of.SecretDiscoveryServiceServicer):
        def StreamSecrets(self, requests, _):  # noqa: N802: the name is gRPC's
            for request in requests:
                if request.response_nonce:
                    continue
                response = xds.DiscoveryResponse(version_info="1", nonce="1", type_url=request.type_url)
                for name in request.resource_names:
                    secret = sds.Secret(name=name)
                    if name.startswith("ROOTCA"):
                        secret.validation_context.CopyFrom(root)
                    else:
                        secret.tls_certificate.CopyFrom(pair)
                    response.resources.add(type_url=request.type_url, value=secret.SerializeToString())
                yield response

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=64))
    service_of.add_SecretDiscoveryServiceServicer_to_server(Secrets(), server)
    server.add_insecure_port(f"unix:{directory}/sds.sock")
    server.start()
    return server


def with_grpcio():
    """A client that is neither ours nor Envoy's, in the state-of-the-world variant."""
    import discovery_pb2 as xds
    import discovery_pb2_grpc as service_of
    import grpc

    requests = queue.Queue()
    channel = grpc.insecure_channel("127.0.0.1:15010")
    stub = service_of.AggregatedDiscoveryServiceStub(channel)
    responses = stub.StreamAggregatedResources(iter(requests.get, None), timeout=TIMEOUT)
    node = xds.Node(id="sidecar~10.1.0.11~ratings-v1.default~default.svc.cluster.local")

    def ask(type_url, names=(), answer=None, error=None):
        request = xds.DiscoveryRequest(type_url=type_url, resource_names=names, node=node)
        if answer is not None:
            request.response_nonce = answer.nonce
            request.version_info = answer.version_info
        if error:
            request.error_detail.code = 3
            request.error_detail.message = error
        requests.put(request)

    ask(CDS)
    first = next(responses)
    assert first.type_url == CDS and len(first.resources) > 5, first
    ask(CDS, answer=first)
    ask(EDS, [REVIEWS])
    second = next(responses)
    assert second.type_url == EDS and len(second.resources) == 1, second
    # Only a name that was added is answered; what was removed is not.
    other = REVIEWS.replace("reviews", "ratings")
    ask(EDS, [REVIEWS, other], answer=second)
    third = next(responses)
    assert third.type_url == EDS and len(third.resources) == 1, third
    ask(EDS, [other], answer=third)
    ask(LDS)
    fourth = next(responses)
    assert fourth.type_url == LDS, fourth
    # A refusal is recorded and not answered: the next answer is to the question after it.
    ask(LDS, answer=fourth, error="not today")
    ask(RDS, ["9080"])
    fifth = next(responses)
    assert fifth.type_url == RDS, fifth
    wait_for("the refusal is shown", lambda: "not today" in (get("http://127.0.0.1:15014/debug/adsz") or ""))
    requests.put(None)
    channel.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--saild", required=True)
    parser.add_argument("--envoy", default=shutil.which("envoy"))
    parser.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    directory = tempfile.mkdtemp(prefix="interop-")
    mesh = Mesh(os.path.abspath(options.saild), directory)
    try:
        mesh.start()
        compile_protos(directory)
        with_grpcio()
        print("grpcio: good")
        secrets = serve_secrets(directory)
        for api_type in ("DELTA_GRPC", "GRPC"):
            under_envoy(mesh, options.envoy, api_type)
            print(f"envoy {api_type}: good")
        secrets.stop(None)
    except BaseException:
        for name in ("saild.log", "DELTA_GRPC.log", "GRPC.log"):
            with contextlib.suppress(OSError), open(os.path.join(directory, name), encoding="utf-8") as log:
                print(f"--- {name}\n{log.read()[-6000:]}", file=sys.stderr)
        raise
    finally:
        if mesh.process:
            mesh.stop()
        if not options.keep:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
