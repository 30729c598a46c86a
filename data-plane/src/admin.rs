//! The admin pages, on the bootstrap's admin address: the same paths, forms and words as Envoy's, since agents,
//! dashboards and people read them.

mod certs;
mod clusters;
mod config_dump;
mod counts;
mod info;
mod lifecycle;
mod listeners;
mod logging;
mod mask;
mod query;
mod runtime;
mod stats;

pub use query::Params;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};

use crate::server::Main;

/// What a page answers.
pub type Page = Response<Full<Bytes>>;

/// A page: its path, what `/help` says, and whether it changes anything.
struct Entry {
    path: &'static str,
    help: &'static str,
    method: Method,
}

const fn get(path: &'static str, help: &'static str) -> Entry {
    Entry { path, help, method: Method::GET }
}

const fn post(path: &'static str, help: &'static str) -> Entry {
    Entry { path, help, method: Method::POST }
}

const PAGES: &[Entry] = &[
    get("/", "Admin home page"),
    post("/allocprofiler", "enable/disable the allocation profiler (if supported)"),
    get("/certs", "print certs on machine"),
    get("/clusters", "upstream cluster status"),
    get("/config_dump", "dump current Envoy configs (experimental)"),
    get("/contention", "dump current Envoy mutex contention stats (if enabled)"),
    post("/cpuprofiler", "enable/disable the CPU profiler"),
    post("/drain_listeners", "drain listeners"),
    post("/healthcheck/fail", "cause the server to fail health checks"),
    post("/healthcheck/ok", "cause the server to pass health checks"),
    get("/heap_dump", "dump current Envoy heap (if supported)"),
    post("/heapprofiler", "enable/disable the heap profiler"),
    get("/help", "print out list of admin commands"),
    get("/hot_restart_version", "print the hot restart compatibility version"),
    get("/init_dump", "dump current Envoy init manager information (experimental)"),
    get("/listeners", "print listener info"),
    post("/logging", "query/change logging levels"),
    get("/memory", "print current allocation/heap usage"),
    post("/quitquitquit", "exit the server"),
    get("/ready", "print server state, return 200 if LIVE, otherwise return 503"),
    post("/reset_counters", "reset all counters to zero"),
    post("/reopen_logs", "reopen access logs"),
    get("/runtime", "print runtime values"),
    post("/runtime_modify", "Adds or modifies runtime values as passed in query parameters"),
    get("/server_info", "print server version/status information"),
    get("/stats", "print server stats"),
    get("/stats/prometheus", "print server stats in prometheus format"),
    get("/stats/recentlookups", "Show recent stat-name lookups"),
];

/// The paths of all pages.
pub fn paths() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|page| page.path)
}

/// The admin listener, bound.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens, if that is an IP address.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Serves until it is dropped. To be run on the main thread's local task set.
pub async fn serve(main: Rc<Main>, listener: Listener) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| connection(&main, stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| connection(&main, stream)),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "admin: cannot accept a connection");
            // Out of descriptors, most likely: others need the processor meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

fn connection<S>(main: &Rc<Main>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let main = main.clone();
    tokio::task::spawn_local(async move {
        let counts = counts::Connection::new(&main.stats);
        let service = service_fn(|request| {
            let main = main.clone();
            let request = counts.request(request);
            async move {
                let page = answer(main, request.0).await;
                request.1.answered(page.status());
                Ok::<_, Infallible>(page)
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "admin: a connection ended");
        }
    });
}

async fn answer(main: Rc<Main>, request: Request<Incoming>) -> Page {
    let path = request.uri().path().trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let Some(entry) = PAGES.iter().find(|entry| entry.path == path) else {
        return text(StatusCode::NOT_FOUND, format!("invalid path. {}", help()));
    };
    let readable = entry.method == Method::GET && request.method() == Method::HEAD;
    if entry.method == Method::POST && request.method() != Method::POST && !readable {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {} not allowed, POST required.", request.method()),
        );
    }
    let params = Params::parse(request.uri().query().unwrap_or_default());
    match entry.path {
        "/" | "/help" => text(StatusCode::OK, help()),
        "/allocprofiler" => unsupported("Allocation profiler is not supported in current build"),
        "/certs" => certs::page(&main),
        "/clusters" => clusters::page(&main, &params),
        "/config_dump" => config_dump::page(&main, &params).await,
        "/contention" => text(
            StatusCode::OK,
            "Mutex contention tracing is not enabled. To enable, run Envoy with \
            flag --enable-mutex-tracing.\n"
                .to_owned(),
        ),
        "/cpuprofiler" => unsupported("The current build does not support CPU profiler"),
        "/drain_listeners" => lifecycle::drain_listeners(&main, &params),
        "/healthcheck/fail" => lifecycle::health(&main, false),
        "/healthcheck/ok" => lifecycle::health(&main, true),
        "/heap_dump" => unsupported("Heap dump is not supported in current build"),
        "/heapprofiler" => unsupported("The current build does not support heap profiler"),
        "/hot_restart_version" => text(StatusCode::OK, "disabled".to_owned()),
        "/init_dump" => info::init_dump(&main),
        "/listeners" => listeners::page(&main, &params),
        "/logging" => logging::page(&main, &params),
        "/memory" => info::memory(),
        "/quitquitquit" => lifecycle::quit(&main),
        "/ready" => info::ready(&main),
        "/reopen_logs" => lifecycle::reopen_logs(&main),
        "/reset_counters" => stats::reset(&main),
        "/runtime" => runtime::page(&main),
        "/runtime_modify" => runtime::modify(&main, &params),
        "/server_info" => info::server_info(&main).await,
        "/stats" => stats::page(&main, &params),
        "/stats/prometheus" => stats::prometheus(&main, &params),
        _ => text(
            StatusCode::OK,
            "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n".to_owned(),
        ),
    }
}

/// Writes whole numbers as such, as Envoy does.
fn integers(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            if let Some(float) = whole.filter(|float| float.abs() < 1e15) {
                *number = (float as i64).into();
            }
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(integers),
        serde_json::Value::Object(all) => all.values_mut().for_each(integers),
        _ => {}
    }
}

fn help() -> String {
    let mut help = "admin commands are:\n".to_owned();
    for entry in PAGES {
        let method = if entry.method == Method::POST { " (POST)" } else { "" };
        help.push_str(&format!("  {}{method}: {}\n", entry.path, entry.help));
    }
    help
}

/// What an Envoy answers that was built without a profiler.
fn unsupported(what: &str) -> Page {
    text(StatusCode::NOT_IMPLEMENTED, what.to_owned())
}

/// A page of text.
fn text(status: StatusCode, body: String) -> Page {
    respond(status, "text/plain; charset=UTF-8", body)
}

/// A page of JSON.
fn json(body: &serde_json::Value) -> Page {
    // A value of strings and numbers has a text.
    respond(StatusCode::OK, "application/json", serde_json::to_string_pretty(body).unwrap_or_default() + "\n")
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Page {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
