"""Processes and files around a measurement: the backend, the proxies, certificates, what a process used."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time

import scenarios

TICKS = os.sysconf("SC_CLK_TCK")


def certificates(folder):
    """A root, and a SPIFFE certificate for each of client and server."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/O=bench", "-days", "2", "-out", "ca.pem")
    for who in ("client", "server"):
        pathlib.Path(folder, f"{who}.ext").write_text(
            f"subjectAltName=critical,URI:spiffe://cluster.local/ns/default/sa/{who},DNS:{who}\n"
            "extendedKeyUsage=clientAuth,serverAuth\nkeyUsage=digitalSignature\n"
        )
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{who}.key")
        openssl("req", "-new", "-key", f"{who}.key", "-subj", "/", "-out", f"{who}.csr")
        openssl(
            *("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", f"{who}.ext", "-out", f"{who}.pem"),
        )


@contextlib.contextmanager
def running(command, port, log):
    """The process of a command, once its port answers; ended with the block."""
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(port, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port, process, log):
    deadline = time.monotonic() + 20
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}: {tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{process.args[0]} does not listen on {port}: {tail(log)}") from None
            time.sleep(0.02)


def tail(log):
    return pathlib.Path(log).read_text(errors="replace")[-600:].strip()


def backend(folder):
    """nginx with a 1 KiB answer on every path and a 1 MiB file."""
    pathlib.Path(folder, "big").write_bytes(os.urandom(1 << 20))
    os.chmod(folder, 0o755)  # nginx's worker is another user
    pathlib.Path(folder, "nginx.conf").write_text(
        f"""
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type text/plain;
  server {{ listen 127.0.0.1:{scenarios.BACKEND} backlog=4096;
    location / {{ return 200 "{"x" * 1024}"; }} location = /big {{ root {folder}; }} }}
  server {{ listen 127.0.0.1:{scenarios.BACKEND_H2} http2 backlog=4096; http2_max_requests 1000000000;
    location / {{ return 200 "{"x" * 1024}"; }} }}
}}
"""
    )
    command = ["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"]
    return running(command, scenarios.BACKEND, f"{folder}/nginx.out")


@contextlib.contextmanager
def proxies(scenario, who, binary, folder):
    """The proxies of a scenario: their processes, last hop started first."""
    with contextlib.ExitStack() as stack:
        if who == "haproxy":
            config = pathlib.Path(folder, "haproxy.cfg")
            config.write_text(scenario.haproxy)
            yield [stack.enter_context(running([binary, "-f", str(config)], scenarios.ENTRY, f"{folder}/haproxy.log"))]
            return
        if who == "bare loop":
            hops = reversed(scenario.bare)
            yield [stack.enter_context(running([binary, *flags], port, f"{folder}/bare-{port}.log")) for port, flags in hops]
            return
        processes = []
        hops = scenario.ours if who != "envoy" and scenario.ours else scenario.hops
        for number, hop in reversed(list(enumerate(hops))):
            config = pathlib.Path(folder, f"{who}-{scenario.name}-{number}.json")
            config.write_text(json.dumps(hop))
            command = [binary, "-c", str(config), "--concurrency", "1", "-l", "error"]
            if who == "envoy":
                command += ["--base-id", str(40 + number)]
            port = hop["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"]
            log = f"{folder}/{who}-{scenario.name}-{number}.log"
            processes.append(stack.enter_context(running(command, port, log)))
        yield processes


def family(process):
    """A process and those it started, by id."""
    ids, open_ids = [], [process.pid]
    while open_ids:
        pid = open_ids.pop()
        ids.append(pid)
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            open_ids += [int(child) for child in (task / "children").read_text().split()]
    return ids


def cpu_seconds(pids, with_ended=False):
    """What processes used, and, if asked, what their children did that have ended."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(ticks) for ticks in fields[11 : 15 if with_ended else 13]) / TICKS
    return total


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def peak_mib(pids):
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total += int(line.split()[1]) / 1024
    return total
