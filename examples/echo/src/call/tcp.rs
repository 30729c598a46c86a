//! One line over TCP and its answer; the connection is half-closed after the line.

use std::collections::BTreeMap;

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Options, Outcome};

pub(super) async fn call(options: &Options, authority: &str) -> anyhow::Result<Outcome> {
    let mut stream = TcpStream::connect(authority).await?;
    stream.write_all(format!("{}\n", options.data).as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let Some(line) = answer.lines().next() else {
        bail!("the server closed without an answer");
    };
    let version = line.split(' ').next().map(str::to_owned);
    Ok(Outcome { status: "ok".to_owned(), version, body: answer, headers: BTreeMap::new() })
}
