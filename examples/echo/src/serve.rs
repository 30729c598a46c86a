//! The server: one port a protocol, HTTP and WebSocket sharing theirs.

mod grpc;
mod http;
mod tcp;
mod websocket;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// What answers call this server.
    #[arg(long, default_value = "v1")]
    version: String,
    /// The address to listen on.
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    address: IpAddr,
    /// The port for HTTP/1.1, HTTP/2 and WebSocket.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// The port for gRPC.
    #[arg(long, default_value_t = 7070)]
    grpc_port: u16,
    /// The port for lines over TCP.
    #[arg(long, default_value_t = 9000)]
    tcp_port: u16,
    /// Answer every HTTP request with 503, health checks aside.
    #[arg(long)]
    fail: bool,
    /// A folder whose files are at `/files/NAME`.
    #[arg(long)]
    files: Option<PathBuf>,
    /// The pod's name, for answers.
    #[arg(long, default_value = "", env = "HOSTNAME")]
    pod: String,
}

/// What the protocols share.
struct Server {
    version: String,
    pod: String,
    fail: bool,
    files: Option<PathBuf>,
    /// Requests seen, health checks aside.
    requests: AtomicU64,
}

/// Headers as text; those of one name are joined as HTTP joins them.
fn headers_as_text(headers: &::http::HeaderMap) -> BTreeMap<String, String> {
    let mut text: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        text.entry(name.to_string())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    text
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let bind = async |port: u16| {
        let address = SocketAddr::new(options.address, port);
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let (http, grpc, tcp) =
        (bind(options.http_port).await?, bind(options.grpc_port).await?, bind(options.tcp_port).await?);
    let server = Arc::new(Server {
        version: options.version,
        pod: options.pod,
        fail: options.fail,
        files: options.files,
        requests: AtomicU64::new(0),
    });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(version = server.version, "serving");
    tokio::select! {
        never = http::serve(http, Arc::clone(&server)) => never,
        ended = grpc::serve(grpc, Arc::clone(&server)) => ended?,
        never = tcp::serve(tcp, server) => never,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The next connection; an error that passes (out of file descriptors) is waited out.
async fn accept(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for acknowledgements; a socket that refuses is merely slower.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}
