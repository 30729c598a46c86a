//! One of the two proxies, and what is seen of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::backend;
use super::case::{Case, Request};
use super::support::{call, wait};

/// What is logged of each request.
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    %UPSTREAM_TRANSPORT_FAILURE_REASON% in=%BYTES_RECEIVED% out=%BYTES_SENT% %PROTOCOL% route=%ROUTE_NAME% \
    cluster=%UPSTREAM_CLUSTER% tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT% %REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% grpc=%GRPC_STATUS%";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a log line may take, of which each request has one: on a busy machine Envoy writes late.
const LOGGED: Duration = Duration::from_secs(3);

pub struct Side {
    child: Child,
    admin: SocketAddr,
    dir: tempfile::TempDir,
}

/// What a run showed.
pub struct Seen {
    /// The answer to each request and its line in the access log.
    pub seen: Vec<String>,
    stats: String,
    /// The names of all statistics.
    pub names: Vec<String>,
}

impl Seen {
    pub fn stat(&self, name: &str) -> Option<&str> {
        self.stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Seen {
    /// The counters and gauges whose names begin so, that are not zero.
    pub fn counted(&self, start: &str) -> String {
        let mut lines: Vec<_> = self.stats.lines().filter_map(|line| line.strip_prefix(start)).collect();
        lines.retain(|line| !line.ends_with(": 0") && !line.contains('('));
        lines.sort_unstable();
        lines.join(" ")
    }
}

impl Side {
    pub fn envoy(case: &Case) -> Self {
        Self::start(Path::new("envoy"), case)
    }

    pub fn ours(case: &Case) -> Self {
        Self::start(Path::new(env!("CARGO_BIN_EXE_sail-proxy")), case)
    }

    fn start(program: &Path, case: &Case) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap().to_owned();
        let log = format!(
            "[{{name: log, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {place}/log, \
             log_format: {{text_format_source: {{inline_string: \"{LOG}\\n\"}}}}}}}}]"
        );
        // Bound, and not listened to: connections are refused.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = case
            .config
            .replace("$LOG", &log)
            .replace("$DIR", &place)
            .replace("$BACKEND", &backend::start().to_string())
            .replace("$NOBODY", &nobody.to_string());
        let (config, admin) = (dir.path().join("bootstrap.yaml"), dir.path().join("admin"));
        let own = "stats_flush_on_admin: true\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n";
        std::fs::write(&config, format!("{own}{text}")).unwrap();
        let child = Command::new(program)
            .args(["-c", config.to_str().unwrap(), "--admin-address-path", admin.to_str().unwrap()])
            .args(["--concurrency", "1", "--file-flush-interval-msec", "10", "-l", "error"])
            .args(["--disable-hot-restart"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run {}: {error}; make test provides it", program.display())
            });
        let mut side = Self { child, admin: ([127, 0, 0, 1], 0).into(), dir };
        side.admin = wait("the admin address", || std::fs::read_to_string(&admin).ok()?.trim().parse().ok());
        wait("readiness", || (side.admin("/ready").0 == 200).then_some(()));
        side
    }

    fn admin(&self, path: &str) -> (u16, String) {
        call(self.admin, "GET", path, &[]).map_or((0, String::new()), |answer| (answer.status, answer.body))
    }

    fn listener(&self, name: &str) -> SocketAddr {
        wait(&format!("listener {name}"), || {
            let body = self.admin("/listeners").1;
            body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok())
        })
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        // A long line may be there in part.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// Sends the case's requests one by one.
    pub fn run(self, case: &Case) -> Seen {
        let mut seen = Vec::new();
        for request in &case.requests {
            let before = self.log().len();
            let to = self.listener(&request.listener);
            let answer = exchange(to, request);
            let lines =
                until(LOGGED, || Some(self.log()).filter(|lines| lines.len() >= before + request.logged));
            let lines = lines.map(|lines| lines[before..].join("\n")).unwrap_or_default();
            let text = format!("{}\nlog: {lines}", tidy(&answer)).replace(&to.to_string(), "LISTENER");
            seen.push(text);
            // What an upstream says after its answer comes before the next request, or it would be that one's answer.
            let pauses = request.bytes.iter().filter(|byte| **byte == b'@').count();
            std::thread::sleep(backend::PAUSE * pauses as u32 * 2);
        }
        let all = self.admin("/stats").1;
        let names = all.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name.to_owned());
        // A line of a metric is read as one of a statistic: how often a histogram was written is told there alone.
        let metrics = self.admin("/stats/prometheus?usedonly").1;
        let metrics: Vec<_> = metrics
            .lines()
            .filter(|line| line.contains("_count{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let stats = format!("{}\n{}", self.admin("/stats?usedonly").1, metrics.join("\n"));
        Seen { seen, names: names.collect(), stats }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Some(found) => return Some(found),
            None if Instant::now() >= end => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The answer to one request on a connection of its own, to its end.
fn exchange(to: SocketAddr, request: &Request) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A proxy that refuses a request need not read it to its end.
    let _ = stream.write_all(&request.bytes);
    let mut bytes = Vec::new();
    let mut space = [0; 65536];
    while !is_complete(&bytes, request.bytes.starts_with(b"HEAD ")) {
        match stream.read(&mut space) {
            Ok(0) | Err(_) => {
                bytes.extend(b"\n(ended early)");
                break;
            }
            Ok(count) => bytes.extend(&space[..count]),
        }
    }
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

fn is_complete(bytes: &[u8], head_only: bool) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    loop {
        let Some((head, body)) = rest.split_once("\r\n\r\n") else { return false };
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('1') && status != "101" {
            rest = body;
            continue;
        }
        let head = head.to_lowercase();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        return match length {
            // Both sides may still speak: an open end is told by its words.
            _ if status == "101" => body == "hello",
            _ if head_only || ["101", "204", "304"].contains(&status) => true,
            Some(length) => length.parse().is_ok_and(|length: usize| body.len() >= length),
            None => head.contains("transfer-encoding: chunked") && body.ends_with("0\r\n\r\n"),
        };
    }
}

/// Without what no two runs have in common, and without the order of headers, which means nothing.
fn tidy(answer: &str) -> String {
    let hide = |line: &str| -> String {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_lowercase().as_str() {
            "date" if !value.contains("2024") => format!("{name}: (now)"),
            "x-request-id" if value.len() == 37 => format!("{name}: (one)"),
            "x-envoy-upstream-service-time" => format!("{name}: (some)"),
            "x-forwarded-for" | "x-envoy-external-address" => format!("{name}: (us)"),
            _ => line.to_owned(),
        }
    };
    let paragraphs = answer.split("\n\n").map(|paragraph| {
        let mut lines: Vec<String> = paragraph.split('\n').map(hide).collect();
        lines[1..].sort();
        lines.join("\n")
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
