//! Echo: a server that tells what reached it over HTTP, WebSocket, gRPC and TCP, and a client that sends requests and
//! counts what comes back. The documented tasks use it where bookinfo has nothing to show.

mod call;
mod collect;
mod serve;

use clap::{Parser, Subcommand};

/// The gRPC service's messages, client and server.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    tonic::include_proto!("ironsail.echo.v1");
}

#[derive(Parser)]
#[command(name = "mesh-echo", version, about)]
struct Arguments {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand)]
enum Side {
    /// Serves until SIGTERM.
    Serve(serve::Options),
    /// Sends requests and prints a summary as JSON.
    Call(call::Options),
    /// Keeps the spans that sidecars send.
    Collect(collect::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Arguments::parse().side {
        Side::Serve(options) => serve::run(options).await,
        Side::Call(options) => call::run(options).await,
        Side::Collect(options) => collect::run(options).await,
    }
}
