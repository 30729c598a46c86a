#!/usr/bin/env python3
"""What sail-proxy and Envoy hold and how fast they start, one worker each, in one run.

Idle connections (KiB each, by protocol), 5,000 clusters of 4 endpoints with a virtual host each (resident MiB, seconds
until ready), new TLS connections (a second, and CPU for each), latency at half of Envoy's saturation. Other clients must
be served while connections idle.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import load
import machine
import scenarios

ADMIN = 21900
SECURE = scenarios.ENTRY + 1
PER_SOURCE = 20_000  # connections from one loopback address, well below the number of its ports

SETTLE = 5  # seconds

NOBODY = "no proxy"

GET = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


# The connection's preface, its settings, and a request whose header block is of HPACK's static table but for the name.
GET_H2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(4, 0, 0)
    + frame(1, 5, 1, b"\x82\x86\x84" + b"\x01\x05bench")
    + frame(4, 1, 0)
)


def server_tls(folder):
    """A server's side that asks for no client certificate."""
    socket_config = scenarios.tls("DownstreamTlsContext", folder, "server", ["h2", "http/1.1"])
    context = socket_config["typed_config"]
    context["require_client_certificate"] = False
    del context["common_tls_context"]["validation_context"]
    return socket_config


def two_listeners(folder):
    """A plain and a TLS listener in front of the backend."""
    manager, app = scenarios.http_manager("app"), scenarios.cluster("app", scenarios.BACKEND)
    listeners = [
        scenarios.listener(scenarios.ENTRY, manager),
        scenarios.listener(SECURE, manager, server_tls(folder)),
    ]
    return scenarios.bootstrap(0, listeners, [app])


def many_clusters(count):
    """Clusters of four endpoints, and a virtual host for each."""
    clusters, hosts = [], []
    for index in range(count):
        name = f"outbound|80||service-{index}.namespace-{index % 50}.svc.cluster.local"
        one = scenarios.cluster(name, 8080)
        endpoint = lambda last: {  # noqa: E731
            "endpoint": {
                "address": {
                    "socket_address": {"address": f"10.{index >> 8 & 255}.{index & 255}.{last}", "port_value": 8080}
                }
            }
        }
        one["load_assignment"]["endpoints"] = [{"lb_endpoints": [endpoint(last) for last in range(1, 5)]}]
        clusters.append(one)
        short = f"service-{index}.namespace-{index % 50}"
        hosts.append(
            {
                "name": f"{short}.svc.cluster.local:80",
                "domains": [f"{short}.svc.cluster.local", short, f"{short}.svc", f"10.96.{index >> 8}.{index & 255}"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}],
            }
        )
    manager = scenarios.http_manager("app")
    manager["typed_config"]["route_config"]["virtual_hosts"] = hosts
    return scenarios.bootstrap(0, [scenarios.listener(scenarios.ENTRY, manager)], clusters)


@contextlib.contextmanager
def proxy(who, binary, bootstrap, folder):
    """A proxy that is ready, and how long that took."""
    path = pathlib.Path(folder, f"{who}-footprint.json")
    path.write_text(json.dumps(bootstrap))
    command = [binary, "-c", str(path), "--concurrency", "1", "-l", "error"]
    if who == "envoy":
        command += ["--base-id", "47"]
    begun = time.monotonic()
    with machine.running(command, ADMIN, f"{folder}/{who}-footprint.log") as process:
        while not ready():
            if time.monotonic() > begun + 60:
                raise RuntimeError(f"{who} is not ready after a minute")
            time.sleep(0.005)
        yield process, time.monotonic() - begun


def ready():
    try:
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=5)
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def resident(process):
    """KiB that are resident, once that has settled: proxies give buffers back after a while."""
    time.sleep(SETTLE)
    last = None
    for _ in range(20):
        now = sum(machine.resident_kib(pid) for pid in machine.family(process))
        if last is not None and abs(now - last) < 64:
            return now
        last = now
        time.sleep(0.25)
    return last


class Kind:
    """What an idle connection speaks."""

    def __init__(self, title, port, hello, alpn=None):
        self.title, self.port, self.hello, self.alpn = title, port, hello, alpn

    def open(self, number):
        """A connection that has had its request answered."""
        connection = socket.socket()
        connection.bind((f"127.0.1.{1 + number // PER_SOURCE}", 0))
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        if self.alpn:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols([self.alpn])
            connection = context.wrap_socket(connection, server_hostname="bench")
        connection.sendall(self.hello)
        answer = b""
        # The backend's body is of one letter.
        while answer.count(b"x") < 1024:
            more = connection.recv(65536)
            if not more:
                raise RuntimeError(f"{self.title}: closed after {answer[:200]!r}")
            answer += more
        return connection


KINDS = {
    "h1": Kind("HTTP/1.1", scenarios.ENTRY, GET),
    "h2": Kind("HTTP/2", scenarios.ENTRY, GET_H2),
    "h1-tls": Kind("HTTP/1.1, TLS", SECURE, GET, "http/1.1"),
    "h2-tls": Kind("HTTP/2, TLS", SECURE, GET_H2, "h2"),
}


def raise_files(wanted):
    """Lets this process, and those it starts later, open that many files, or as many as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard), max(wanted, hard)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < wanted:
        sys.exit(f"error: this may open {hard} files, but {wanted} are needed: raise `ulimit -Hn`")


def idle(who, binary, kind, count, folder):
    """KiB for each of `count` connections that idle, and how long another client's request takes meanwhile."""
    with proxy(who, binary, two_listeners(folder), folder) as (process, _):
        warm = [kind.open(0) for _ in range(50)]
        for one in warm:
            one.close()
        before = resident(process)
        held = [kind.open(number) for number in range(count)]
        after = resident(process)
        begun = time.monotonic()
        KINDS["h1"].open(0).close()
        other = (time.monotonic() - begun) * 1e3
        for one in held:
            one.close()
        back = resident(process)
    return (after - before) / count, other, after / 1024, back / 1024


def new_connections(who, binary, seconds, folder):
    """TLS connections a second with one request each, and CPU µs of the proxy for each."""
    with proxy(who, binary, two_listeners(folder), folder) as (process, _):
        url = f"https://127.0.0.1:{SECURE}/"
        pids = machine.family(process)
        before = machine.cpu_seconds(pids)
        result = load.wrk(url, seconds, 32, ["-H", "Connection: close"])
        return result["rate"], (machine.cpu_seconds(pids) - before) * 1e6 / max(1, result["requests"]), result["errors"]


def latencies(peers, seconds, folder, rounds=3):
    """Medians of each proxy's percentiles at half of what Envoy can take, and of what load and backend take without one."""
    url = f"http://127.0.0.1:{scenarios.ENTRY}/"
    with proxy("envoy", peers["envoy"], two_listeners(folder), folder):
        half = load.wrk(url, seconds, 64)["rate"] / 2

    def through(who):
        if who == NOBODY:
            return load.paced(f"http://127.0.0.1:{scenarios.BACKEND}/", seconds, 64, half, folder)
        with proxy(who, peers[who], two_listeners(folder), folder):
            load.paced(url, 1, 64, half, folder)
            return load.paced(url, seconds, 64, half, folder)

    results = {who: [] for who in [NOBODY, *peers]}
    for _ in range(rounds):
        for who, seen in results.items():
            seen.append(through(who))
    for who, seen in results.items():
        median = {key: statistics.median(result[key] for result in seen) for key in ("p50", "p99")}
        yield who, half, median | {"errors": sum(result["errors"] for result in seen)}


def line(*cells):
    print("  ".join(str(cell).rjust(14) if index else str(cell).ljust(38) for index, cell in enumerate(cells)), flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", help="the sail-proxy binary")
    parser.add_argument("--envoy", default=shutil.which("envoy"), help="the envoy binary")
    parser.add_argument("--only", default="idle,clusters,tls,p99", help="idle, clusters, tls, p99: comma-separated")
    parser.add_argument("--kinds", default=",".join(KINDS), help="what idle connections speak")
    parser.add_argument("--idle", type=int, default=10_000, help="how many connections idle")
    parser.add_argument("--clusters", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=4, help="of new TLS connections")
    return parser.parse_args()


def main():
    options = arguments()
    peers = {who: binary for who, binary in {"sail-proxy": options.ours, "envoy": options.envoy}.items() if binary}
    raise_files(options.idle + 1024)
    folder = tempfile.mkdtemp(prefix="ironsail-bench-")
    only = options.only.split(",")
    try:
        machine.certificates(folder)
        with machine.backend(folder):
            for key in options.kinds.split(",") if "idle" in only else []:
                for who, binary in peers.items():
                    each, other, total, back = idle(who, binary, KINDS[key], options.idle, folder)
                    line(
                        f"{options.idle} idle, {KINDS[key].title}",
                        who,
                        f"{each:.1f} KiB each",
                        f"{total:.0f} MiB",
                        f"{back:.0f} MiB after",
                        f"other: {other:.1f} ms",
                    )
            for who, binary in peers.items() if "clusters" in only else []:
                with proxy(who, binary, many_clusters(options.clusters), folder) as (process, took):
                    cpu = machine.cpu_seconds(machine.family(process), with_ended=True)
                    memory = f"{resident(process) / 1024:.1f} MiB"
                    line(f"{options.clusters} clusters", who, memory, f"ready in {took:.2f} s", f"{cpu:.2f} s CPU")
            for who, binary in peers.items() if "tls" in only else []:
                rate, cpu, errors = new_connections(who, binary, options.seconds, folder)
                line("new TLS connections", who, f"{rate:.0f}/s", f"{cpu:.0f} µs CPU each", f"{errors} errors")
            for who, rate, result in latencies(peers, options.seconds, folder) if "p99" in only else []:
                percentiles = (f"p50 {result['p50']:.2f} ms", f"p99 {result['p99']:.2f} ms")
                line(f"{rate:.0f} requests/s (half of Envoy's most)", who, *percentiles, f"{result['errors']} errors")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
