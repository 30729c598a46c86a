//! gRPC: one call that answers once, one that answers as long as the peer talks.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Server, headers_as_text};
use crate::proto::echo_server::{Echo, EchoServer};
use crate::proto::{Answer, Message};

pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) -> anyhow::Result<()> {
    let service = EchoServer::new(Service(server));
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

struct Service(Arc<Server>);

fn answer(server: &Server, metadata: &MetadataMap, message: Message) -> Result<Answer, Status> {
    server.requests.fetch_add(1, Ordering::Relaxed);
    if message.fail_with != 0 {
        return Err(Status::new(Code::from_i32(message.fail_with), message.text));
    }
    let headers = headers_as_text(&metadata.clone().into_headers()).into_iter().collect();
    Ok(Answer { text: message.text, version: server.version.clone(), pod: server.pod.clone(), headers })
}

#[tonic::async_trait]
impl Echo for Service {
    async fn say(&self, request: Request<Message>) -> Result<Response<Answer>, Status> {
        let (metadata, _, message) = request.into_parts();
        answer(&self.0, &metadata, message).map(Response::new)
    }

    type TalkStream = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

    async fn talk(&self, request: Request<Streaming<Message>>) -> Result<Response<Self::TalkStream>, Status> {
        let (metadata, _, messages) = request.into_parts();
        let server = Arc::clone(&self.0);
        Ok(Response::new(messages.map(move |message| answer(&server, &metadata, message?)).boxed()))
    }
}
