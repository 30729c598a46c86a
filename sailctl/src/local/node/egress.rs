//! The way out: TCP connections of pods to addresses outside of the mesh end here, and go on from the machine's network.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::Node;

/// Where redirected connections arrive.
pub(crate) const PORT: u16 = 10001;

/// Serves them.
pub(crate) async fn run(node: Arc<Node>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = relay(&node, stream).await {
                tracing::debug!("a connection out of the mesh: {error}");
            }
        });
    }
}

async fn relay(node: &Node, mut stream: TcpStream) -> std::io::Result<()> {
    let raw = getsockopt(&stream.as_fd(), OriginalDst)?;
    let address =
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port));
    let mut out = node.host.connect(SocketAddr::V4(address)).await?;
    copy_bidirectional(&mut stream, &mut out).await?;
    Ok(())
}
