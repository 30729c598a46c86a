//! One of the two proxies, and what is seen of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::backend;
use super::beside::{Running, until};
use super::case::{Case, Request};

/// What is logged of each request.
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    %UPSTREAM_TRANSPORT_FAILURE_REASON% in=%BYTES_RECEIVED% out=%BYTES_SENT% %PROTOCOL% route=%ROUTE_NAME% \
    cluster=%UPSTREAM_CLUSTER% tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT% %REQ(:METHOD)% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% grpc=%GRPC_STATUS%";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a log line may take, of which each request has one: on a busy machine Envoy writes late.
const LOGGED: Duration = Duration::from_secs(3);

pub struct Side(Running);

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
        Self(Running::envoy(&Self::config(case), LOG))
    }

    pub fn ours(case: &Case) -> Self {
        Self(Running::ours(&Self::config(case), LOG))
    }

    /// The configuration with this run's own servers in it.
    fn config(case: &Case) -> String {
        // Bound, and not listened to: connections are refused.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        case.config.replace("$BACKEND", &backend::start().to_string()).replace("$NOBODY", &nobody.to_string())
    }

    /// Sends the case's requests one by one.
    pub fn run(self, case: &Case) -> Seen {
        let mut seen = Vec::new();
        for request in &case.requests {
            let before = self.0.log().len();
            let to = self.0.listener(&request.listener);
            let answer = exchange(to, request);
            let lines =
                until(LOGGED, || Some(self.0.log()).filter(|lines| lines.len() >= before + request.logged));
            let lines = lines.map(|lines| lines[before..].join("\n")).unwrap_or_default();
            let text = format!("{}\nlog: {lines}", tidy(&answer)).replace(&to.to_string(), "LISTENER");
            seen.push(text);
            // What an upstream says after its answer comes before the next request, or it would be that one's answer.
            let pauses = request.bytes.iter().filter(|byte| **byte == b'@').count();
            std::thread::sleep(backend::PAUSE * pauses as u32 * 2);
        }
        let all = self.0.admin("/stats").1;
        let names = all.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name.to_owned());
        // A line of a metric is read as one of a statistic: how often a histogram was written is told there alone.
        let metrics = self.0.admin("/stats/prometheus?usedonly").1;
        let metrics: Vec<_> = metrics
            .lines()
            .filter(|line| line.contains("_count{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let stats = format!("{}\n{}", self.0.admin("/stats?usedonly").1, metrics.join("\n"));
        Seen { seen, names: names.collect(), stats }
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
