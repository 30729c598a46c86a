//! TCP: each line comes back behind the server's version.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Server, accept};

pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    loop {
        let stream = accept(&listener).await;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            server.requests.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = echo(stream, &server.version).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn echo(mut stream: TcpStream, version: &str) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{version} {line}\n").as_bytes()).await?;
    }
    write.shutdown().await
}
