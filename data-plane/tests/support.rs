//! The real binary on ports of the kernel's choosing, and the servers around it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses its part; what fails here fails the test"
)]

// By path, since cargo also takes this file for a test of its own, without tests.
#[path = "support/xds.rs"]
pub mod xds;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy; dropped, it is killed.
pub struct Proxy {
    child: Child,
    pub admin: SocketAddr,
    pub dir: tempfile::TempDir,
}

/// Listens for connections that must come: `accept` fails where none has come in time.
pub fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The kernel takes a listener's receive timeout for accepting, too.
    socket2::SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
    listener
}

/// Runs a test as it is where transparent sockets are allowed, and else as root of a user namespace of its own.
pub fn with_transparent_sockets(test: &str, run: impl FnOnce()) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if socket.set_ip_transparent_v4(true).is_ok() {
        return run();
    }
    let again = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", again])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in a user namespace of its own");
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Proxy {
    /// Starts the proxy with this bootstrap, which needs no `admin`.
    pub fn start(bootstrap: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, address) = (dir.path().join("bootstrap.yaml"), dir.path().join("admin"));
        let admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n";
        let text = format!("{admin}{}", bootstrap.replace("$DIR", dir.path().to_str().unwrap()));
        std::fs::write(&config, text).unwrap();
        #[expect(clippy::disallowed_methods, reason = "any proxy that reads the same files may be tried")]
        let peer = std::env::var_os("PROXY_UNDER_TEST");
        let child = Command::new(peer.unwrap_or_else(|| env!("CARGO_BIN_EXE_sail-proxy").into()))
            .args(["-c", config.to_str().unwrap(), "--admin-address-path", address.to_str().unwrap()])
            .args([
                "--concurrency",
                "1",
                "--file-flush-interval-msec",
                "20",
                "-l",
                "warning",
                "--disable-hot-restart",
            ])
            .args(flags)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut proxy = Self { child, admin: ([127, 0, 0, 1], 0).into(), dir };
        proxy.admin = wait("the admin address", || std::fs::read_to_string(&address).ok()?.parse().ok());
        proxy
    }

    /// Starts it and waits until it serves.
    pub fn ready(bootstrap: &str, flags: &[&str]) -> Self {
        let proxy = Self::start(bootstrap, flags);
        wait("readiness", || (proxy.admin("GET", "/ready").status == 200).then_some(()));
        proxy
    }

    /// Resident memory, in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Asks an admin page.
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        call(self.admin, method, path, &[]).expect("the admin page answers")
    }

    /// A counter or gauge; `None` while it was never written.
    pub fn stat(&self, name: &str) -> Option<i64> {
        let body = self.admin("GET", "/stats?usedonly").body;
        body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
    }

    /// Where a listener listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        wait(&format!("listener {name}"), || {
            let body = self.admin("GET", "/listeners").body;
            body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok())
        })
    }

    /// Tells it to end.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Waits for its end.
    pub fn exit(&mut self) -> std::process::ExitStatus {
        wait("the end of the process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until there is something.
pub fn wait<T>(what: &str, mut try_it: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = try_it() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One HTTP/1.1 request on a connection of its own.
pub fn call(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str("host: test\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

fn unchunk(mut body: &str) -> String {
    let mut all = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size.trim(), 16) else { break };
        all.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or_default();
    }
    all
}

/// An HTTP/1.1 server that answers every request with its name, and passes heads and bodies on.
pub struct Backend {
    pub address: SocketAddr,
    pub seen: mpsc::Receiver<String>,
}

impl Backend {
    pub fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, seen) = mpsc::channel();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let send = send.clone();
                std::thread::spawn(move || serve(stream, name, &send));
            }
        });
        Self { address, seen }
    }

    /// The next request, as head and body.
    pub fn next(&self) -> String {
        self.seen.recv_timeout(PATIENCE).expect("a request reaches the backend")
    }
}

fn serve(stream: TcpStream, name: &str, seen: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let _ = seen.send(format!("{head}\r\n{}", String::from_utf8_lossy(&body)));
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
