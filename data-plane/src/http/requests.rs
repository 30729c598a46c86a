//! The requests of an HTTP/1 connection, one after the other.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::conn::{self, Codec, Connection, Ender};
use super::{handler, refusal};
use crate::http1::downstream::{self, Ended, Options, Responder};
use crate::http1::{Error, Form, Limits, Refusal, RequestRules, Rules};
use crate::net::Stream;
use crate::rt::Sleeper;
use crate::stats::Meter;
use crate::stats::sets::http as stats;
use crate::stream_info::CloseType;

/// How long a client is silent before its connection rests.
const REST_AFTER: Duration = Duration::from_secs(2);

/// How a time of serving ended.
enum End {
    /// The client was silent for a while.
    Rests,
    /// The connection is to be closed.
    Closes,
    /// It is of no use any more.
    Broke,
    /// What came is no request.
    Refused(Refusal),
    /// It speaks another protocol from here on.
    Switched(Switching),
}

/// Who takes a connection over that switches to another protocol.
pub(crate) struct Switching {
    pub(crate) to: tokio::sync::oneshot::Sender<(Stream, Meter)>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

/// Serves a connection to its end. While the client is silent for longer, all that requests need is given back: the place
/// for one takes several times what the rest of an idle connection does.
pub(super) async fn serve(connection: &Rc<Connection>, stream: Stream) {
    let codec = downstream::Connection::new(stream, options(connection), connection.traffic());
    // It is set here alone.
    let _ = connection.codec.set(Codec::Http1(codec.informer()));
    let mut ender = Ender::new(connection);
    let mut ender = pin!(Sleeper::new(ender.run()));
    loop {
        match Box::pin(run(connection, &codec, ender.as_mut())).await {
            End::Rests => {}
            End::Closes => return close(connection, &codec).await,
            End::Broke => return,
            End::Refused(refusal) => return Box::pin(refusal::answer(connection, codec, refusal)).await,
            End::Switched(Switching { to, task }) => {
                if let Some(stream) = codec.take_stream()
                    && to.send(stream).is_ok()
                {
                    // It fails only where the worker ends.
                    let _ = task.await;
                }
                return conn::count_end(connection, connection.closing.get());
            }
        }
        codec.rest();
        let more = poll_fn(|context| match ender.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending => codec.poll_more(context).map(|()| true),
        });
        if !more.await {
            conn::count_end(connection, true);
            return close(connection, &codec).await;
        }
    }
}

/// Lets a client go.
pub(super) async fn close(connection: &Connection, codec: &downstream::Connection) {
    if !codec.close().await {
        connection.manager.stats.inc(stats::downstream_cx_delayed_close_timeout);
    }
}

fn options(connection: &Connection) -> Options {
    let manager = &connection.manager;
    let (timeouts, protocol) = (&manager.config.timeouts, &manager.config.http1);
    let limits = Limits { headers: manager.max_headers(), bytes: manager.max_header_bytes() };
    let requests = RequestRules {
        any_method: protocol.allow_custom_methods,
        clear: connection.accepted.tls.is_none() && manager.config.client_address.use_remote_address,
    };
    Options {
        rules: Rules { limits, keeps_names: protocol.header_case.is_kept(), requests },
        head_limit: timeouts.request_headers,
        delayed_close: timeouts.delayed_close,
        form: Form::of(protocol),
    }
}

/// Serves requests for as long as they come.
async fn run(
    connection: &Rc<Connection>,
    codec: &downstream::Connection,
    ender: Pin<&mut impl Future<Output = ()>>,
) -> End {
    let mut orders = Orders { ender, told: false };
    let mut rest = pin!(Sleeper::new(comes_to_rest(connection)));
    let mut responder = Responder::new(codec.clone());
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(request) = codec.poll_request(context) {
                return Poll::Ready(Ok(request));
            }
            if orders.poll(codec, context) {
                return Poll::Ready(Err(End::Closes));
            }
            rest.as_mut().poll(context).map(|()| Err(End::Rests))
        });
        let request = match next.await {
            Ok(Ok(request)) => request,
            Ok(Err(ended)) => return end(connection, ended),
            Err(End::Rests) => return End::Rests,
            Err(end) => {
                conn::count_end(connection, true);
                return end;
            }
        };
        let response = {
            let mut handling = pin!(handler::serve(connection.clone(), request, None));
            let handled = poll_fn(|context| {
                orders.poll(codec, context);
                match handling.as_mut().poll(context) {
                    Poll::Ready(response) => Poll::Ready(Ok(response)),
                    Poll::Pending => codec.poll_gone(context).map(Err),
                }
            });
            match handled.await {
                Ok(response) => response,
                // Told while the request is under way, as it is counted.
                Err(ended) => return end(connection, ended),
            }
        };
        // Held here: if the response does not reach the client, nobody waits for its connection any more.
        let switching = connection.switching.take();
        responder.begin(response);
        let sent = poll_fn(|context| {
            let is_last = orders.poll(codec, context);
            match poll_sent(connection, &mut responder, is_last && switching.is_none(), context) {
                Poll::Ready(sent) => Poll::Ready(Ok(sent)),
                Poll::Pending if responder.waits_for_its_turn() => Poll::Pending,
                Poll::Pending => codec.poll_gone(context).map(Err),
            }
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(Error::Io(error))) => return end(connection, Ended::Broken(error)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a response broke off");
                conn::count_end(connection, true);
                return End::Broke;
            }
            Err(ended) => return end(connection, ended),
        }
        if let Some(switching) = switching {
            return End::Switched(switching);
        }
        if orders.told || !responder.goes_on() {
            conn::count_end(connection, true);
            return End::Closes;
        }
    }
}

/// Sends a response. The last one is given up where the client takes nothing of it.
pub(super) fn poll_sent(
    connection: &Connection,
    responder: &mut Responder,
    is_last: bool,
    context: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    let sent = responder.poll(context);
    if sent.is_ready() || responder.waits_for_its_turn() {
        return sent;
    }
    ready!(responder.poll_given_up(is_last, context));
    connection.manager.stats.inc(stats::downstream_cx_delayed_close_timeout);
    Poll::Ready(Err(Error::Interrupted))
}

/// What ends a connection that would go on.
struct Orders<'a, F> {
    ender: Pin<&'a mut F>,
    told: bool,
}

impl<F: Future<Output = ()>> Orders<'_, F> {
    /// Whether the connection is to end.
    fn poll(&mut self, codec: &downstream::Connection, context: &mut Context<'_>) -> bool {
        if !self.told && self.ender.as_mut().poll(context).is_ready() {
            self.told = true;
            codec.close_after_this();
        }
        self.told
    }
}

/// Ends once the client was silent for long enough. To be asked while a request is waited for.
async fn comes_to_rest(connection: &Connection) {
    let mut next = Instant::now() + REST_AFTER;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let (now, due) = (Instant::now(), connection.idle_since.get() + REST_AFTER);
        if connection.active.get() == 0 && due <= now {
            return;
        }
        next = due.max(now + REST_AFTER / 2);
    }
}

/// Counts why no further request comes.
fn end(connection: &Connection, ended: Ended) -> End {
    match ended {
        Ended::Refused(refusal) => {
            if refusal != Refusal::TooSlow {
                connection.manager.stats.inc(stats::downstream_cx_protocol_error);
            }
            tracing::debug!(%refusal, "no HTTP/1 request");
            conn::count_end(connection, true);
            End::Refused(refusal)
        }
        Ended::Closed => {
            conn::count_end(connection, connection.closing.get());
            End::Broke
        }
        Ended::Broken(error) => {
            if error.kind() == io::ErrorKind::ConnectionReset {
                connection.downstream.state.life.closed.set(CloseType::RemoteReset);
            }
            conn::count_end(connection, connection.closing.get());
            End::Broke
        }
    }
}
