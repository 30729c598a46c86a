//! `port-forward`: a port of this machine, leading to a pod or to a service's ready pods.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::find_pod;
use crate::local::kind::{Key, Kind};
use crate::local::protocol::Request;
use crate::local::{StateDir, client};

#[derive(Args)]
pub(crate) struct Options {
    /// The pod, deploy/NAME or svc/NAME.
    target: String,
    /// Ports: LOCAL:REMOTE, or one number for both; LOCAL 0 takes any that is free.
    #[arg(required = true)]
    ports: Vec<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let target = match options.target.split_once('/') {
        Some((kind, name)) if Kind::parse(kind)?.name == "Service" => {
            Key::core("Service", &options.namespace, name)
        }
        _ => find_pod(state, &options.namespace, &options.target)?,
    };
    let mut threads = Vec::new();
    for ports in &options.ports {
        let (local, remote) = ports.split_once(':').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().with_context(|| format!("{ports}: want LOCAL:REMOTE"));
        let (local, remote) = (number(local)?, number(remote)?);
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, local)).map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => {
                    anyhow!("port {local}: another program has it; choose another, or 0 for any")
                }
                _ => anyhow!("port {local}: {error}"),
            })?;
        println!("127.0.0.1:{} -> {target}:{remote}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        let (state, target) = (state.clone(), target.clone());
        threads.push(std::thread::spawn(move || serve(&state, &listener, &target, remote)));
    }
    for thread in threads {
        if thread.join().is_err() {
            bail!("a forwarding thread failed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(state: &StateDir, listener: &TcpListener, target: &Key, port: u16) {
    for stream in listener.incoming().flatten() {
        let (state, target) = (state.clone(), target.clone());
        std::thread::spawn(move || {
            if let Err(error) = relay(&state, stream, target, port) {
                eprintln!("error: {error:#}");
            }
        });
    }
}

fn relay(state: &StateDir, stream: TcpStream, target: Key, port: u16) -> anyhow::Result<()> {
    let mut tunnel = client::connect(state)?;
    client::send(&mut tunnel, &Request::Tunnel { target, port })?;
    let mut inner = BufReader::new(tunnel.try_clone()?);
    client::receive(&mut inner)?;
    let upwards = (stream.try_clone()?, tunnel.try_clone()?);
    let up = std::thread::spawn(move || pump_up(upwards.0, upwards.1));
    // What came together with the answer is of the connection.
    (&stream).write_all(inner.buffer())?;
    let length = inner.buffer().len();
    inner.consume(length);
    let _ = std::io::copy(&mut inner, &mut &stream);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = up.join();
    Ok(())
}

fn pump_up(mut from: TcpStream, mut to: UnixStream) {
    // Either side may end first.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
