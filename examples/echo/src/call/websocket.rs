//! One WebSocket message and its answer.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

use super::{Options, Outcome, header};

pub(super) async fn call(options: &Options, rest: &str) -> anyhow::Result<Outcome> {
    let mut request = format!("ws://{rest}").into_client_request()?;
    for option in &options.headers {
        let (name, value) = header(option)?;
        request.headers_mut().insert(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await?;
    socket.send(Message::text(options.data.clone())).await?;
    let Message::Text(text) = socket.next().await.context("the server closed without an answer")?? else {
        bail!("the server answered with something other than text");
    };
    socket.close(None).await?;
    let version = text.split(' ').next().map(str::to_owned);
    let status = response.status().as_str().to_owned();
    Ok(Outcome { status, version, body: text.to_string(), headers: BTreeMap::new() })
}
