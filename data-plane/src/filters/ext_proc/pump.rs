//! A body that passes by the service piece by piece.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::task::Supervised;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{HttpBody, HttpTrailers};

use super::change;
use super::session::{Session, Side, Stop};
use crate::filters::edit;
use crate::http::body::{Body, BodyError};

/// What the service sees of a body on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sees {
    pub(super) data: bool,
    pub(super) trailers: bool,
}

/// Puts the service into a body's way.
pub(super) fn wrap(body: &mut Body, session: &Rc<Session>, side: Side, sees: Sees) {
    if body.is_end_stream() || !(sees.data || sees.trailers) {
        return;
    }
    let inner = std::mem::replace(body, Body::Empty);
    let (give, frames) = mpsc::channel(1);
    let session = session.clone();
    let task = Supervised::spawn_local(async move {
        if let Err(error) = run(&session, side, sees, inner, &give).await {
            let _ = give.send(Err(error)).await;
        }
    });
    *body = Body::boxed(Pumped { frames, _task: task });
}

type Give = mpsc::Sender<Result<Frame<Bytes>, BodyError>>;

async fn run(
    session: &Session,
    side: Side,
    sees: Sees,
    mut body: Body,
    give: &Give,
) -> Result<(), BodyError> {
    let mut told_end = false;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                let end = body.is_end_stream();
                told_end = end;
                let data = if sees.data { piece(session, side, data, end).await? } else { data };
                if !data.is_empty() && give.send(Ok(Frame::data(data))).await.is_err() {
                    return Ok(());
                }
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { continue };
                if sees.trailers {
                    self::trailers(session, side, &mut trailers).await?;
                }
                let _ = give.send(Ok(Frame::trailers(trailers))).await;
                return Ok(());
            }
        }
    }
    if sees.data && !told_end {
        let data = piece(session, side, Bytes::new(), true).await?;
        if !data.is_empty() {
            let _ = give.send(Ok(Frame::data(data))).await;
        }
    }
    Ok(())
}

fn stopped(session: &Session, stop: Stop) -> Result<(), BodyError> {
    match stop {
        Stop::Done => Ok(()),
        Stop::Immediate(response) => {
            session.immediate.replace(Some(response));
            Err(BodyError::Reset("ext_proc answered"))
        }
        Stop::Failed(details) => Err(BodyError::Reset(details)),
    }
}

async fn piece(session: &Session, side: Side, data: Bytes, end: bool) -> Result<Bytes, BodyError> {
    let body = HttpBody { body: data.to_vec(), end_of_stream: end, ..Default::default() };
    let phase = match side {
        Side::Request => Phase::RequestBody(body),
        Side::Response => Phase::ResponseBody(body),
    };
    let answer = match session.ask(side, phase).await {
        Ok(answer) => answer,
        Err(stop) => return stopped(session, stop).map(|()| data),
    };
    let common = match answer.response {
        Some(Answer::RequestBody(body) | Answer::ResponseBody(body)) => body.response,
        _ => return stopped(session, session.fail("ext_proc_error_spurious_message")).map(|()| data),
    };
    // The head is out already: only the body may change.
    let replaced = change::replaced(common.and_then(|common| common.body_mutation));
    Ok(replaced.map_or(data, Bytes::from))
}

async fn trailers(session: &Session, side: Side, trailers: &mut HeaderMap) -> Result<(), BodyError> {
    let config = session.config.clone();
    let shown = HttpTrailers { trailers: Some(change::shown(&config, change::pairs(trailers))) };
    let phase = match side {
        Side::Request => Phase::RequestTrailers(shown),
        Side::Response => Phase::ResponseTrailers(shown),
    };
    let answer = match session.ask(side, phase).await {
        Ok(answer) => answer,
        Err(stop) => return stopped(session, stop),
    };
    if let Some(Answer::RequestTrailers(answer) | Answer::ResponseTrailers(answer)) = answer.response {
        let mut removed = Vec::new();
        let set = |name: &str, value: &[u8], action| edit::set(trailers, name, value, action);
        let result =
            change::apply(&config, answer.header_mutation, set, |name| removed.push(name.to_owned()));
        removed.iter().for_each(|name| edit::remove(trailers, name));
        if result.is_err() {
            return stopped(session, session.fail("ext_proc_error_rejected_mutation"));
        }
    }
    Ok(())
}

struct Pumped {
    frames: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
    _task: Supervised<()>,
}

impl http_body::Body for Pumped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.frames.poll_recv(context)
    }
}
