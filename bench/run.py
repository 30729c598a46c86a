#!/usr/bin/env python3
"""sail-proxy, Envoy, haproxy and a bare loop under the same configuration and load, one worker each, in one run.

The proxies take turns round by round and medians are compared, so that a machine that drifts does so for all of them.
CPU is that of the proxy processes, per request that got its answer. A figure with errors is not a figure: they are shown.
"""

import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile

import load
import machine
import scenarios


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", help="the sail-proxy binary")
    parser.add_argument("--envoy", default=shutil.which("envoy"), help="the envoy binary")
    parser.add_argument("--bare", help="the bare-loop binary: hyper and rustls with no proxy around them")
    parser.add_argument("--haproxy", default=shutil.which("haproxy"), help="the haproxy binary")
    parser.add_argument("--only", default="", help="scenarios, by name and comma-separated")
    parser.add_argument("--seconds", type=int, default=4, help="of load in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, help="requests a second, the same for all; as fast as they go without it")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the table to this file, too")
    return parser.parse_args()


def measure(scenario, who, binary, options, folder):
    url = f"http://127.0.0.1:{scenarios.ENTRY}{scenario.path}"
    with machine.proxies(scenario, who, binary, folder) as processes:
        load.run(scenario.load, url, 1, options.connections, options.rate)  # so that connections are open and code is paged in
        pids = [pid for process in processes for pid in machine.family(process)]
        before = machine.cpu_seconds(pids)
        result = load.run(scenario.load, url, options.seconds, options.connections, options.rate)
        result["cpu"] = (machine.cpu_seconds(pids) - before) * 1e6 / max(1, result["requests"])
        result["rss"] = machine.peak_mib(pids)
        return result


def medians(results):
    return {
        name: None if results[0][name] is None else statistics.median(result[name] for result in results)
        for name in results[0]
    }


def rows_of(scenario, options, folder):
    peers = {"sail-proxy": options.ours, "envoy": options.envoy}
    if scenario.haproxy:
        peers["haproxy"] = options.haproxy
    if scenario.bare:
        peers["bare loop"] = options.bare
    peers = {who: binary for who, binary in peers.items() if binary}
    results = {who: [] for who in peers}
    for _ in range(options.rounds):
        for who, binary in peers.items():
            results[who].append(measure(scenario, who, binary, options, folder))
    found = {who: medians(rounds) for who, rounds in results.items()}
    envoy = found.get("envoy")
    for who, figures in found.items():
        ratio = f"{figures['cpu'] / envoy['cpu']:.2f}" if envoy and who != "envoy" else ""
        p99 = "" if figures["p99"] is None else f"{figures['p99']:.2f}"
        yield (
            scenario.title,
            who,
            f"{figures['rate']:.0f}",
            f"{figures['p50']:.2f}",
            p99,
            f"{figures['cpu']:.1f}",
            ratio,
            f"{figures['rss']:.1f}",
            f"{figures['errors']:.0f}",
        )


HEAD = ("path", "proxy", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "× Envoy", "peak RSS MiB", "errors")


def main():
    options = arguments()
    folder = tempfile.mkdtemp(prefix="ironsail-bench-")
    table = [HEAD, tuple("---" for _ in HEAD)]
    try:
        machine.certificates(folder)
        chosen = [one for one in scenarios.scenarios(folder) if not options.only or one.name in options.only.split(",")]
        with machine.backend(folder):
            for scenario in chosen:
                for row in rows_of(scenario, options, folder):
                    table.append(row)
                    print("  ".join(cell.rjust(9) if index > 1 else cell.ljust(38 - 24 * index) for index, cell in enumerate(row)), flush=True)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.markdown:
        options.markdown.write_text("\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")


main()
