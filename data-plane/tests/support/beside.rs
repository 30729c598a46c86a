//! Envoy or sail-proxy with the same configuration: its process, admin pages and access log.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses its part; what fails here fails the test"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{call, wait};

/// One of the two, running; dropped, it is killed.
pub struct Running {
    child: Child,
    admin: SocketAddr,
    dir: tempfile::TempDir,
}

impl Running {
    pub fn envoy(config: &str, log: &str) -> Self {
        Self::start(Path::new("envoy"), config, log)
    }

    pub fn ours(config: &str, log: &str) -> Self {
        Self::start(Path::new(env!("CARGO_BIN_EXE_sail-proxy")), config, log)
    }

    /// With a bootstrap that needs no `admin`; `$LOG` in it stands for an access log of this format.
    fn start(program: &Path, config: &str, log: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap().to_owned();
        let log = format!(
            "[{{name: log, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {place}/log, \
             log_format: {{text_format_source: {{inline_string: \"{log}\\n\"}}}}}}}}]"
        );
        let text = config.replace("$LOG", &log).replace("$DIR", &place);
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
        let mut running = Self { child, admin: ([127, 0, 0, 1], 0).into(), dir };
        running.admin =
            wait("the admin address", || std::fs::read_to_string(&admin).ok()?.trim().parse().ok());
        wait("readiness", || (running.admin("/ready").0 == 200).then_some(()));
        running
    }

    pub fn admin(&self, path: &str) -> (u16, String) {
        self.ask("GET", path)
    }

    pub fn ask(&self, method: &str, path: &str) -> (u16, String) {
        call(self.admin, method, path, &[]).map_or((0, String::new()), |answer| (answer.status, answer.body))
    }

    pub fn listener(&self, name: &str) -> SocketAddr {
        wait(&format!("listener {name}"), || {
            let body = self.admin("/listeners").1;
            body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("::")?.parse().ok())
        })
    }

    /// The lines of the access log.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A long line may be there in part.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is something, or too long.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Some(found) => return Some(found),
            None if Instant::now() >= end => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
