//! Bookinfo: four small services that call one another, for seeing what a mesh does. One binary, one subcommand a
//! service, each listening for plain HTTP/1.1 and HTTP/2 on its port.

mod catalog;
mod details;
mod forward;
mod productpage;
mod ratings;
mod reviews;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bookinfo", version, about)]
struct Arguments {
    /// The port to listen on.
    #[arg(long, global = true, default_value_t = 9080, env = "PORT")]
    port: u16,
    /// The address to listen on.
    #[arg(long, global = true, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    address: std::net::IpAddr,
    #[command(subcommand)]
    service: Service,
}

#[derive(Subcommand)]
enum Service {
    /// The page: calls details and reviews.
    Productpage(productpage::Options),
    /// Facts about a book.
    Details,
    /// What readers say about a book; calls ratings unless it shows no stars.
    Reviews(reviews::Options),
    /// How many stars readers give a book.
    Ratings,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let address = SocketAddr::new(arguments.address, arguments.port);
    let handler: Arc<dyn server::Handler> = match arguments.service {
        Service::Productpage(options) => Arc::new(productpage::ProductPage::new(options)),
        Service::Details => Arc::new(details::Details),
        Service::Reviews(options) => Arc::new(reviews::Reviews::new(options)),
        Service::Ratings => Arc::new(ratings::Ratings::default()),
    };
    server::serve(address, handler).await.with_context(|| format!("cannot serve on {address}"))
}
