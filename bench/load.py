"""Load from wrk and h2load, and what they say about it."""

import re
import subprocess

SCALE = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def milliseconds(number, unit):
    return float(number) * SCALE[unit]


def run(kind, url, seconds, connections):
    """Requests, requests a second, errors, and p50 and p99 in milliseconds (None where the generator has none)."""
    if kind == "h2":
        return h2load(url, seconds, connections)
    return wrk(url, seconds, connections)


def output_of(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wrk(url, seconds, connections, options=()):
    text = output_of(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *options, url])

    def percentile(rank):
        return milliseconds(*re.search(rf"\s{rank}%\s+([\d.]+)(us|ms|s)", text).groups())

    errors = [int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", text)]
    errors += [int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", text)]
    return {
        "requests": int(re.search(r"(\d+) requests in", text)[1]),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": percentile(50),
        "p99": percentile(99),
        "errors": sum(errors),
    }


def h2load(url, seconds, connections):
    clients, streams = max(1, connections // 16), 16
    text = output_of(["h2load", "-t1", f"-c{clients}", f"-m{streams}", f"-D{seconds}", url])
    done = re.search(r"requests: .*? (\d+) succeeded, (\d+) failed", text)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)
    return {
        "requests": int(done[1]),
        "rate": float(re.search(r"finished in \S+ ([\d.]+) req/s", text)[1]),
        "p50": milliseconds(*mean.groups()),
        "p99": None,
        "errors": int(done[2]),
    }
