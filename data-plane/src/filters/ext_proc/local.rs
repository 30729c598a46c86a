//! A response that the service streams in the upstream's place.

use base::task::Supervised;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use sail_proxy_decide::headers::AppendAction;
use tokio::sync::mpsc;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::streamed_immediate_response::Response as Part;
use xds_api::envoy::service::ext_proc::v3::{HttpHeaders, StreamedImmediateResponse};

use super::course::Course;
use super::session::Stop;
use crate::filters::edit;
use crate::http::body::{Body, BodyError};

/// See the module's documentation.
pub(super) struct Local {
    course: Course,
    ended: bool,
}

/// The head of such a response, and the rest of it.
pub(super) fn begin(
    course: Course,
    part: StreamedImmediateResponse,
) -> Result<(Response<Bytes>, Local), Stop> {
    let Some(Part::HeadersResponse(HttpHeaders { headers, end_of_stream, .. })) = part.response else {
        return Err(course.session.spurious());
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    for header in headers.unwrap_or_default().headers {
        let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        let name = header.key.to_ascii_lowercase();
        let add = AppendAction::AppendIfExistsOrAdd;
        // One that no header can have is left out.
        let _ = edit::set_response(&mut response, &name, &value, add);
    }
    Ok((response, Local { course, ended: end_of_stream }))
}

impl Local {
    /// The body, as it comes.
    pub(super) fn into_body(self) -> Body {
        let Self { mut course, ended } = self;
        if ended {
            return Body::Empty;
        }
        let (give, frames) = mpsc::channel(1);
        let task = Supervised::spawn_local(async move {
            course.set_duplex(true);
            loop {
                let (frame, ended) = match course.answer().await.map(|answer| answer.response) {
                    Ok(Some(Answer::StreamedImmediateResponse(part))) => match part.response {
                        Some(Part::BodyResponse(piece)) => {
                            (Frame::data(Bytes::from(piece.body)), piece.end_of_stream)
                        }
                        Some(Part::TrailersResponse(map)) => (Frame::trailers(trailers(map)), true),
                        _ => break,
                    },
                    _ => break,
                };
                if give.send(Ok(frame)).await.is_err() || ended {
                    return;
                }
            }
            let _ = give.send(Err(BodyError::Reset("ext_proc broke its answer off"))).await;
        });
        Body::boxed(super::pump::Pumped::new(frames, task))
    }
}

/// Those that can be.
fn trailers(map: core::HeaderMap) -> HeaderMap {
    let pairs = map.headers.into_iter().filter_map(|header| {
        let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        edit::header(&header.key.to_ascii_lowercase(), &value).ok()
    });
    pairs.collect()
}
