//! Checks capture by a connection of our own: it is sent to a port where nobody listens, and must arrive at the
//! proxy's, with its first destination still known to the kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::socket::{getsockopt, sockopt};

use crate::cli::IptablesArgs;
use crate::config::node;

const POLL: Duration = Duration::from_millis(20);

/// Runs the check.
pub(super) fn run(args: &IptablesArgs, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let port = |flag: &str, text: &str| -> anyhow::Result<u16> {
        text.parse().with_context(|| format!("--{flag} {text:?} is not a port"))
    };
    let outbound = listen(port("envoy-port", &args.envoy_port)?)?;
    let inbound = listen(port("inbound-capture-port", &args.inbound_capture_port)?)?;
    let address = node::addresses(None).into_iter().find(IpAddr::is_ipv4);
    let address = SocketAddr::new(
        address.context("this network namespace has no IPv4 address of its own")?,
        args.iptables_probe_port,
    );
    let _connection = TcpStream::connect_timeout(&address, timeout)
        .with_context(|| format!("a connection to {address} was not taken over by the rules"))?;
    while Instant::now() < deadline {
        for listener in [&outbound, &inbound] {
            match listener.accept() {
                Ok((stream, _)) => return check(&stream, address.port()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accepting the connection"),
            }
        }
        std::thread::sleep(POLL);
    }
    bail!("the connection to {address} did not arrive within {timeout:?}")
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .with_context(|| format!("listening on port {port} in place of the proxy"))?;
    listener.set_nonblocking(true).context("listening")?;
    Ok(listener)
}

fn check(stream: &TcpStream, expected: u16) -> anyhow::Result<()> {
    let original = getsockopt(stream, sockopt::OriginalDst)
        .context("the kernel does not know the connection's original destination")?;
    let port = u16::from_be(original.sin_port);
    if port != expected {
        bail!("the connection's original destination is port {port}, not {expected}");
    }
    Ok(())
}
