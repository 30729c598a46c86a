//! An HTTP/1 connection that keeps how names of headers are spelled, where the configuration of one of both sides asks for
//! that.
//!
//! Spellings go from one side of the proxy to the other in a map that is hyper's own, so here hyper is the client. Its
//! codec runs in a task, which ends with the connection's owner.

use std::rc::Rc;

use base::task::Supervised;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use sail_proxy_config::hcm::HeaderCase;
use tokio_util::sync::CancellationToken;

use super::Facts;
use crate::http::body::Body;
use crate::http1::{Limits, USUAL_HEADERS};
use crate::net::Stream;

/// The codec has at least so much.
const MIN_BUFFER: usize = 8 * 1024;

/// See the module's documentation.
pub(crate) struct Spelled {
    send: http1::SendRequest<Body>,
    _codec: Supervised<()>,
}

impl Spelled {
    pub(super) async fn new(
        stream: Stream,
        (limits, case): (Limits, HeaderCase),
        facts: Facts,
        abort: CancellationToken,
    ) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder
            .max_buf_size(limits.bytes.max(MIN_BUFFER))
            .preserve_header_case(case.is_kept())
            .title_case_headers(case.is_proper());
        if limits.headers != USUAL_HEADERS {
            builder.max_headers(limits.headers);
        }
        let (send, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let codec = Supervised::spawn_local(async move {
            // Why it ended shows in the request that was on it.
            let ended = abort.run_until_cancelled(connection.with_upgrades()).await;
            facts.ending.task_ended(ended.is_none(), Rc::strong_count(&facts) > 1);
        });
        Ok(Self { send, _codec: codec })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// Whether the codec is done with the last exchange.
    pub(super) fn is_ready(&self) -> bool {
        self.send.is_ready()
    }

    /// Waits until it is; says whether it came to that.
    pub(super) async fn ready(&mut self) -> bool {
        self.send.ready().await.is_ok()
    }

    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.send.try_send_request(request)
    }
}
