"""Load from wrk and h2load, and what they say about it."""

import pathlib
import re
import subprocess

SCALE = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def milliseconds(number, unit):
    return float(number) * SCALE[unit]


def run(kind, url, seconds, connections, rate=None):
    """Requests, requests a second, errors, and p50 and p99 in milliseconds (None where the generator has none). At most so
    many requests a second, where a rate is given."""
    if kind == "h2" or rate:
        return h2load(kind, url, seconds, connections, rate)
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


def paced(url, seconds, connections, rate, folder):
    """HTTP/1.1 requests at a pace that does not wait for answers to speed up: p50 and p99 in milliseconds, and errors."""
    log = pathlib.Path(folder, "paced.tsv")
    log.unlink(missing_ok=True)
    each = max(1, round(rate / connections))
    command = ["h2load", "--h1", "-t1", f"-c{connections}", f"--rps={each}", f"-D{seconds}", f"--log-file={log}", url]
    output_of(command)
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(row[2]) / 1e3 for row in rows if row[1] == "200")
    if not times:
        raise RuntimeError(f"nothing was answered at {rate:.0f} requests a second")
    at = lambda rank: times[min(len(times) - 1, int(len(times) * rank))]  # noqa: E731
    return {"p50": at(0.50), "p99": at(0.99), "rate": len(times) / seconds, "errors": len(rows) - len(times)}


def h2load(kind, url, seconds, connections, rate):
    clients, streams = (max(1, connections // 16), 16) if kind == "h2" else (connections, 1)
    options = [f"-c{clients}", f"-m{streams}", f"-D{seconds}"]
    if kind != "h2":
        options.append("--h1")
    if rate:
        options.append(f"--rps={max(1, round(rate / clients))}")
    text = output_of(["h2load", "-t1", *options, url])
    done = re.search(r"requests: .*? (\d+) succeeded, (\d+) failed", text)
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", text)
    return {
        "requests": int(done[1]),
        "rate": float(re.search(r"finished in \S+ ([\d.]+) req/s", text)[1]),
        "p50": milliseconds(*mean.groups()),
        "p99": None,
        "errors": int(done[2]),
    }
