//! Both ends of the codec, against each other and against hyper's.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use sail_proxy_config::hcm::{Http2Keepalive, Http2Limits};
use sail_proxy_http2::frame::{Reason, kind, write};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::downstream::{self, OnStream, Service, Serving};
use super::upstream::{self, Failed};
use super::{Counts, Error, Options, probe};
use crate::http::body::{Body, BodyError};
use crate::http1::Limits;
use crate::net::prefixed::Prefixed;
use crate::net::{Raw, Stream};
use crate::stats::sets;
use crate::stats::{Scope, Store};

const OPTIONS: Options = Options {
    stream_window: 70_000,
    connection_window: 100_000,
    max_streams: Some(7),
    table: 4096,
    heads: Limits { headers: 100, bytes: 60 * 1024 },
    connect: false,
    stream_errors: false,
    max_field: 64 * 1024,
    asks_after: None,
    huffman: false,
    limits: Http2Limits::DEFAULT,
};

fn stream(socket: UnixStream) -> Stream {
    Stream::Plain(Prefixed::new(Bytes::new(), Raw::Unix(socket)))
}

fn traffic() -> crate::stats::Traffic {
    let scope: Scope<sets::http::Set> = Store::new().scope("t");
    scope.traffic(sets::http::downstream_cx_rx_bytes_total, sets::http::downstream_cx_tx_bytes_total)
}

fn counts() -> Counts {
    Counts::OfClients(Store::new().scope::<sets::http2::Set>(""))
}

/// Our end towards an upstream, which is driven.
fn client(socket: UnixStream) -> upstream::Connection {
    let options = Options { max_streams: None, ..OPTIONS };
    let (connection, driver) = upstream::Connection::new(stream(socket), options, None, traffic(), counts());
    tokio::task::spawn_local(driver.run());
    connection
}

/// Our end towards a client, which is driven until it is told to leave.
fn server(socket: UnixStream, service: impl Service, leave: impl Future<Output = Duration> + 'static) {
    let connection = downstream::Connection::new(stream(socket), OPTIONS, traffic(), counts());
    tokio::task::spawn_local(async move {
        connection.drive(None, pin!(leave), &service).await;
        connection.close(Duration::from_secs(1)).await;
    });
}

/// Runs what is to be done within a time that it never takes.
fn run(test: impl Future<Output = ()>) {
    crate::rt::local().unwrap().block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("it hangs");
    });
}

/// A body of several parts, and trailers.
fn parts(parts: Vec<Bytes>) -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-count", HeaderValue::from(parts.len()));
    let frames = parts.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, BodyError>))))
}

/// Sizes that lie beside those of frames and windows.
fn sizes(seed: usize) -> Vec<Bytes> {
    let sizes = [1, 16_383, 16_384, 16_385, 65_535, 70_001, 150_000];
    (0..1 + seed % 3).map(|part| Bytes::from(vec![part as u8; sizes[(seed + part) % sizes.len()]])).collect()
}

fn post(body: Body) -> Request<Body> {
    Request::post("http://a/echo").header("x-id", "1").body(body).unwrap()
}

/// Gives back what it gets; `/never` is never answered, and `/fail` breaks off.
#[derive(Clone, Default)]
struct Echo {
    dropped: Rc<Cell<usize>>,
    broke: Rc<Cell<Option<Error>>>,
    refused: Rc<Cell<Option<Error>>>,
}

struct Noted(Echo);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + 1);
    }
}

impl Service for Echo {
    fn serve(&self, request: Request<Body>, _: OnStream) -> Serving {
        let noted = Noted(self.clone());
        Box::pin(async move {
            match request.uri().path() {
                "/never" => {
                    pending::<()>().await;
                    drop(noted);
                    Response::new(Body::Empty)
                }
                "/fail" => {
                    let frames = [Ok(Frame::data(Bytes::from_static(b"a"))), Err(BodyError::Reset("so"))];
                    let frames = futures_util::stream::iter(frames);
                    Response::new(Body::boxed(StreamBody::new(frames)))
                }
                _ => Response::builder().header("x-back", "1").body(request.into_body()).unwrap(),
            }
        })
    }

    fn refuse(&self, error: Error) {
        self.refused.set(Some(error));
    }

    fn breaks_off(&self, error: Option<Error>) {
        self.broke.set(error.or(self.broke.get()));
    }
}

/// Asks for an echo, and checks it.
async fn check_echo(connection: &upstream::Connection, seed: usize) {
    let sent = sizes(seed);
    let (count, whole) = (sent.len(), sent.concat());
    let response = connection.send(post(parts(sent))).await.unwrap();
    assert_eq!(response.headers()["x-back"], "1");
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-count"], HeaderValue::from(count));
    assert!(collected.to_bytes() == whole, "another body of {} bytes", whole.len());
}

#[test]
fn many_requests_share_a_connection() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        server(far, Echo::default(), pending());
        let connection = client(near);
        // From here on it knows how many streams may be open at a time.
        check_echo(&connection, 0).await;
        // More than that, with bodies beyond all windows.
        join_all((0..40).map(|seed| check_echo(&connection, seed))).await;
    });
}

#[test]
fn hypers_server_is_spoken_to() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async {
            Ok::<_, Infallible>(Response::builder().header("x-back", "1").body(request.into_body()).unwrap())
        });
        tokio::task::spawn_local(async move {
            let mut builder = hyper::server::conn::http2::Builder::new(Local);
            builder.max_concurrent_streams(3).initial_stream_window_size(20_000).header_table_size(100);
            builder.serve_connection(TokioIo::new(far), service).await
        });
        let connection = client(near);
        check_echo(&connection, 0).await;
        join_all((0..40).map(|seed| check_echo(&connection, seed))).await;
    });
}

/// Spawns on the test's own runtime.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[test]
fn hypers_client_is_served() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        server(far, Echo::default(), pending());
        let (send, connection) =
            hyper::client::conn::http2::handshake(Local, TokioIo::new(near)).await.unwrap();
        tokio::task::spawn_local(connection);
        let ask = |seed| {
            let mut send = send.clone();
            async move {
                let sent = sizes(seed);
                let whole = sent.concat();
                let response = send.send_request(post(parts(sent))).await.unwrap();
                let collected = response.into_body().collect().await.unwrap();
                assert!(collected.trailers().unwrap().contains_key("x-count"));
                assert!(collected.to_bytes() == whole, "another body of {} bytes", whole.len());
            }
        };
        ask(0).await;
        join_all((0..40).map(ask)).await;
    });
}

#[test]
fn what_is_given_up_is_dropped_on_the_other_side() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        let echo = Echo::default();
        server(far, echo.clone(), pending());
        let connection = client(near);
        let mut asking = pin!(connection.send(Request::get("http://a/never").body(Body::Empty).unwrap()));
        let waits = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context).is_pending())).await;
        assert!(waits);
        check_echo(&connection, 1).await;
        assert_eq!(echo.dropped.get(), 1, "the echo alone");
        {
            let other = connection.send(Request::get("http://a/never").body(Body::Empty).unwrap());
            drop(other);
        }
        while echo.dropped.get() < 3 {
            check_echo(&connection, 1).await;
        }
        assert_eq!(echo.broke.get(), Some(Error::Reset(Reason::CANCEL)));
    });
}

#[test]
fn a_response_that_breaks_off_does_so_on_the_other_side() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        server(far, Echo::default(), pending());
        let connection = client(near);
        let asking = connection.send(Request::get("http://a/fail").body(Body::Empty).unwrap());
        let mut body = asking.await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Http2(Error::Reset(Reason::INTERNAL_ERROR))), "{error:?}");
        check_echo(&connection, 2).await;
    });
}

#[test]
fn who_leaves_finishes_what_was_begun() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (leave, told) = tokio::sync::oneshot::channel::<()>();
        server(far, Echo::default(), async {
            let _ = told.await;
            Duration::from_secs(5)
        });
        let connection = client(near);
        let (more, rest) = tokio::sync::mpsc::channel::<Bytes>(1);
        let rest = tokio_stream::wrappers::ReceiverStream::new(rest);
        let frames = futures_util::StreamExt::map(rest, |data| Ok::<_, BodyError>(Frame::data(data)));
        let request = post(Body::boxed(StreamBody::new(frames)));
        more.send(Bytes::from_static(b"a")).await.unwrap();
        let mut body = connection.send(request).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        drop(leave);
        while !connection.is_closed() {
            tokio::task::yield_now().await;
        }
        let Failed { unsent, .. } = connection.send(post(Body::Empty)).await.unwrap_err();
        assert!(unsent.is_some(), "another connection may take it");
        more.send(Bytes::from_static(b"b")).await.unwrap();
        drop(more);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "b");
    });
}

#[test]
fn requests_learn_that_their_connection_was_given_up() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        server(far, Echo::default(), pending());
        let options = Options { max_streams: None, ..OPTIONS };
        let (connection, driver) =
            upstream::Connection::new(stream(near), options, None, traffic(), counts());
        let driving = tokio::task::spawn_local(driver.run());
        check_echo(&connection, 0).await;
        let asking = connection.send(Request::get("http://a/never").body(Body::Empty).unwrap());
        driving.abort();
        let Failed { unsent, error } = asking.await.unwrap_err();
        assert!(unsent.is_none() && matches!(error, BodyError::Http2(Error::GivenUp)), "{error:?}");
        assert!(connection.is_closed());
    });
}

#[test]
fn malformed_requests_are_told_of() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        let echo = Echo::default();
        server(far, echo.clone(), pending());
        let connection = client(near);
        let mut request = post(Body::Empty);
        let values = (0..101).map(|_| HeaderValue::from_static("x"));
        values.for_each(|value| {
            request.headers_mut().append("x-many", value);
        });
        let Failed { unsent, error } = connection.send(request).await.unwrap_err();
        assert!(unsent.is_none() && matches!(error, BodyError::Http2(Error::Reset(_))), "{error:?}");
        assert_eq!(echo.refused.get(), Some(Error::TooMany));
        check_echo(&connection, 0).await;
        let mut request = post(Body::Empty);
        request.headers_mut().insert("content-length", HeaderValue::from_static("no"));
        let Failed { error, .. } = connection.send(request).await.unwrap_err();
        assert!(matches!(error, BodyError::Http2(_)), "{error:?}");
        assert_eq!(echo.refused.get(), Some(Error::Field("a length that is none")));
    });
}

#[test]
fn head_has_a_length_and_no_body() {
    run(async {
        let (near, far) = UnixStream::pair().unwrap();
        let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
            let response = Response::builder().status(StatusCode::OK).header("content-length", "5");
            Ok::<_, Infallible>(response.body(Body::Empty).unwrap())
        });
        let serving = hyper::server::conn::http2::Builder::new(Local);
        tokio::task::spawn_local(async move { serving.serve_connection(TokioIo::new(far), service).await });
        let connection = client(near);
        let request = Request::head("http://a/").body(Body::Empty).unwrap();
        let response = connection.send(request).await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert!(http_body::Body::is_end_stream(response.body()));
    });
}

/// An upstream that answers no ping is heard all the same while it says anything.
#[test]
fn whatever_is_heard_is_a_sign_of_life() {
    run(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let every = |millis| Duration::from_millis(millis);
        let keepalive = Http2Keepalive {
            interval: Some(every(10)),
            interval_jitter: Duration::ZERO,
            connection_idle_interval: None,
            timeout: every(200),
        };
        let options = Options { max_streams: None, ..OPTIONS };
        let (connection, driver) =
            upstream::Connection::new(stream(near), options, Some(keepalive), traffic(), counts());
        tokio::task::spawn_local(driver.run());
        let mut first = Vec::new();
        write(&mut first, kind::SETTINGS, 0, 0, &[]);
        far.write_all(&first).await.unwrap();
        // Of a kind that nobody knows.
        let mut frame = Vec::new();
        write(&mut frame, 99, 0, 0, &[]);
        let started = Instant::now();
        // Longer than a ping may be without an answer.
        while started.elapsed() < every(600) {
            far.write_all(&frame).await.unwrap();
            assert!(!connection.is_closed());
            tokio::time::sleep(every(20)).await;
        }
        // Silence ends it.
        while far.read(&mut [0; 1024]).await.unwrap() > 0 {}
        assert!(connection.is_closed());
    });
}

/// Frames, mostly well-formed, of few streams.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let get = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    let payload = prop_oneof![
        3 => Just(get.to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => Just(vec![0, 0, 0, 1]),
        1 => Just(vec![0; 8]),
        1 => Just(Vec::new()),
    ];
    let frame = (0..11_u8, any::<u8>(), 0..8_u32, payload).prop_map(|(kind, flags, stream, payload)| {
        let mut bytes = Vec::new();
        sail_proxy_http2::frame::write(&mut bytes, kind, flags, stream, &payload);
        bytes
    });
    proptest::collection::vec(frame, 0..20).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn anything_is_read_alike_however_it_is_cut(bytes in frames(), size in 1_usize..20) {
        probe::clients(&bytes, size);
        probe::upstreams(&bytes, size);
    }
}
