//! Requests from a client's connection to one of the upstream's, by hyper's connections.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use anyhow::Result;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::header::HOST;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::rt::Executor;
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::Protocol;
use crate::tls::{Stream, Upstream};

/// The connections to the upstream.
pub(crate) struct Pool {
    upstream: Rc<Upstream>,
    to: Protocol,
    idle: RefCell<Vec<client1::SendRequest<Incoming>>>,
    shared: RefCell<Option<client2::SendRequest<Incoming>>>,
}

impl Pool {
    /// Of an upstream that speaks `to`.
    pub(crate) fn new(upstream: Rc<Upstream>, to: Protocol) -> Self {
        Self { upstream, to, idle: RefCell::default(), shared: RefCell::default() }
    }

    async fn send(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Answer>> {
        match self.to {
            Protocol::Http2 => {
                let mut sender = self.shared().await?;
                let response = sender.send_request(as_http2(request)?).await?;
                Ok(response.map(|body| Answer { body, back: None }))
            }
            Protocol::Http1 | Protocol::Tcp => {
                let mut sender = self.own().await?;
                let response = sender.send_request(as_http1(request)?).await?;
                Ok(response.map(|body| Answer { body, back: Some((self, sender)) }))
            }
        }
    }

    /// A connection over HTTP/1 for one request.
    async fn own(&self) -> Result<client1::SendRequest<Incoming>> {
        while let Some(mut sender) = { self.idle.borrow_mut().pop() } {
            // Where its last answer has just ended, its task has yet to see that.
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let (sender, connection) = client1::handshake(TokioIo::new(self.upstream.connect().await?)).await?;
        spawn_local(connection);
        Ok(sender)
    }

    /// The connection over HTTP/2 that all share.
    async fn shared(&self) -> Result<client2::SendRequest<Incoming>> {
        let open = self.shared.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned();
        if let Some(sender) = open {
            return Ok(sender);
        }
        let (sender, connection) =
            client2::handshake(Local, TokioIo::new(self.upstream.connect().await?)).await?;
        spawn_local(connection);
        *self.shared.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}

/// HTTP/2 names an authority; HTTP/1 has it in a header.
fn as_http2(mut request: Request<Incoming>) -> Result<Request<Incoming>> {
    *request.version_mut() = Version::HTTP_2;
    if request.uri().authority().is_none() {
        let host = request.headers_mut().remove(HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority =
            Some(Authority::try_from(host.as_ref().map_or(&b"upstream"[..], |host| host.as_bytes()))?);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts)?;
    }
    Ok(request)
}

fn as_http1(mut request: Request<Incoming>) -> Result<Request<Incoming>> {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_some() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = None;
        if let Some(authority) = parts.authority.take() {
            request.headers_mut().insert(HOST, authority.as_str().parse()?);
        }
        *request.uri_mut() = Uri::from_parts(parts)?;
    }
    Ok(request)
}

/// An answer's body; its connection goes back to the pool with its end.
struct Answer {
    body: Incoming,
    back: Option<(Rc<Pool>, client1::SendRequest<Incoming>)>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some((pool, sender)) = self.back.take() {
            pool.idle.borrow_mut().push(sender);
        }
    }
}

/// Serves a client over HTTP/1.1; a request that fails ends its connection.
pub(crate) async fn serve_http1(client: Stream, pool: Rc<Pool>) -> Result<()> {
    let service = service_fn(|request| pool.clone().send(request));
    Ok(server1::Builder::new().serve_connection(TokioIo::new(client), service).await?)
}

/// Serves a client over HTTP/2; a request that fails has its stream reset.
pub(crate) async fn serve_http2(client: Stream, pool: Rc<Pool>) -> Result<()> {
    let service = service_fn(|request| pool.clone().send(request));
    Ok(server2::Builder::new(Local).serve_connection(TokioIo::new(client), service).await?)
}

/// Tasks of HTTP/2 on this thread.
#[derive(Clone)]
struct Local;

impl<Task: Future + 'static> Executor<Task> for Local {
    fn execute(&self, task: Task) {
        spawn_local(task);
    }
}
