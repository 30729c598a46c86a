//! A hop of hyper and rustls with no proxy around it, in the shape that sail-proxy has: one thread, one current-thread
//! runtime, connections to the upstream that are kept.
//!
//! It has no routes, filters, statistics, timers, retries or logs, and passes every header as it came. What it takes for
//! a request is what the libraries and the kernel take on a machine: the floor that `make bench` shows beside the proxies.

mod http;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::tls::{Acceptor, Stream, Upstream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that are read at a time where bytes are passed on as they come.
const CHUNK: usize = 64 * 1024;

/// What a connection speaks.
#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// Bytes.
    Tcp,
}

/// Serves one port and passes all of it to one upstream.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect to.
    #[arg(long)]
    upstream: SocketAddr,
    /// What clients speak.
    #[arg(long)]
    from: Protocol,
    /// What the upstream speaks; bytes stay bytes.
    #[arg(long)]
    to: Protocol,
    /// Serve mutual TLS with server.pem, server.key and ca.pem of this folder.
    #[arg(long)]
    serve_tls: Option<PathBuf>,
    /// Connect by mutual TLS with client.pem, client.key and ca.pem of this folder.
    #[arg(long)]
    dial_tls: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(serve(options)))
}

async fn serve(options: Options) -> Result<()> {
    let acceptor = Acceptor::new(options.serve_tls.as_deref())?;
    let upstream = Rc::new(Upstream::new(options.upstream, options.dial_tls.as_deref())?);
    let pool = Rc::new(http::Pool::new(upstream.clone(), options.to));
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, upstream, pool) = (acceptor.clone(), upstream.clone(), pool.clone());
        spawn_local(async move {
            // A connection that fails is the client's affair: the load counts it as an error.
            let _ = connection(socket, options.from, &acceptor, &upstream, pool).await;
        });
    }
}

async fn connection(
    socket: TcpStream,
    from: Protocol,
    acceptor: &Acceptor,
    upstream: &Upstream,
    pool: Rc<http::Pool>,
) -> Result<()> {
    socket.set_nodelay(true)?;
    let client = acceptor.accept(socket).await?;
    match from {
        Protocol::Http1 => http::serve_http1(client, pool).await,
        Protocol::Http2 => http::serve_http2(client, pool).await,
        Protocol::Tcp => bytes(client, upstream).await,
    }
}

async fn bytes(mut client: Stream, upstream: &Upstream) -> Result<()> {
    let mut server = upstream.connect().await?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, CHUNK, CHUNK).await?;
    Ok(())
}
