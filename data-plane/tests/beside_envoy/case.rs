//! A case: a configuration, requests, and the statistics that must agree.
//!
//! ```text
//! What it shows.
//! --- config
//! static_resources: …
//! --- request [LISTENER]
//! GET / HTTP/1.1
//! host: a
//!
//! --- request [LISTENER] differs: why
//! …
//! --- stats
//! http.in.downstream_rq_total
//! --- names
//! ^cluster\.[^.]+\.http2\.
//! ```
//!
//! A statistic that ends in `*` stands for all that begin so. With `names`, ours has every statistic that Envoy has, but for those that match one of its expressions. In a request, `\xNN` is a byte and `{a*70000}` is that many of one; an empty line ends its head.

/// See the module's documentation.
pub struct Case {
    pub config: String,
    pub requests: Vec<Request>,
    pub stats: Vec<String>,
    /// Names of statistics that Envoy has and we have not; `None`: names are not compared.
    pub names: Option<Vec<regex::Regex>>,
}

pub struct Request {
    /// The listener that gets it.
    pub listener: String,
    pub bytes: Vec<u8>,
    /// How many lines of the log it makes, if any.
    pub logged: usize,
    /// Why the answers are not the same.
    pub differs: Option<String>,
}

impl Case {
    pub fn read(text: &str) -> Self {
        let mut case = Self { config: String::new(), requests: Vec::new(), stats: Vec::new(), names: None };
        for section in text.split("\n--- ").skip(1) {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            match title.split_once(' ').unwrap_or((title, "")) {
                ("config", _) => case.config = format!("{body}\n"),
                ("request", rest) => case.requests.push(Request::read(rest, body)),
                ("stats", _) => case.stats = body.split_whitespace().map(str::to_owned).collect(),
                ("names", _) => {
                    let lines = body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                    case.names = Some(lines.map(|line| regex::Regex::new(line).unwrap()).collect());
                }
                (other, _) => panic!("no such section: {other}"),
            }
        }
        case
    }
}

impl Request {
    fn read(title: &str, body: &str) -> Self {
        let (listener, differs) = match title.split_once("differs: ") {
            Some((listener, why)) => (listener.trim(), Some(why.to_owned())),
            None => (title.trim(), None),
        };
        let (listener, logged) = match listener.strip_suffix("logged twice") {
            Some(listener) => (listener.trim(), 2),
            None => (listener, 1),
        };
        let listener = if listener.is_empty() { "l" } else { listener };
        let lines: Vec<&str> = body.split('\n').collect();
        Self { listener: listener.to_owned(), logged, bytes: unescape(&lines.join("\r\n")), differs }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(hex) = rest.strip_prefix("\\x").and_then(|rest| rest.get(..2)) {
            bytes.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[4..];
            continue;
        }
        let many = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        if let Some((what, after)) = many
            && let Some((one, count)) = what.split_once('*')
        {
            bytes.extend(one.repeat(count.parse().unwrap()).bytes());
            rest = after;
            continue;
        }
        bytes.extend(first.to_string().bytes());
        rest = &rest[first.len_utf8()..];
    }
    bytes
}
