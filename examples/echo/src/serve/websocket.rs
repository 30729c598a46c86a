//! WebSocket (RFC 6455): each message comes back behind the server's version.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Answers 101 and echoes until the peer closes.
pub(super) fn accept(mut request: Request<Incoming>, version: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) =
        request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()))
    else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let Ok(key) = HeaderValue::from_str(&key) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let version = version.to_owned();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => echo(TokioIo::new(stream), &version).await,
            Err(error) => tracing::debug!(%error, "the upgrade failed"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

async fn echo(stream: TokioIo<hyper::upgrade::Upgraded>, version: &str) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let answer = match message {
            Message::Text(text) => Message::text(format!("{version} {text}")),
            Message::Binary(bytes) => Message::Binary(bytes),
            Message::Close(_) => break,
            // Pings are answered by the library.
            _ => continue,
        };
        if socket.send(answer).await.is_err() {
            break;
        }
    }
}
