//! `envoy.filters.http.grpc_http1_bridge`: gRPC calls from HTTP/1.1 clients, who read no trailers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode, Version};
use http_body_util::BodyExt;
use sail_proxy_config::http_filter::grpc_http1_bridge::GrpcHttp1Bridge;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::gather;
use crate::http::local_reply::LocalReply;
use crate::stream_info::details;

/// As much of a message as is held.
const LIMIT: usize = 1024 * 1024;

/// The request came as plain protobuf, and so shall the response go.
struct Plain(bool);

/// The filter, with its configuration.
pub(crate) struct Filter(pub(crate) GrpcHttp1Bridge);

fn too_large() -> Flow<'static> {
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    let details = details::REQUEST_PAYLOAD_TOO_LARGE;
    Flow::Reply(Box::new(LocalReply::new(status, "Payload Too Large", details)))
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let protobuf = self.0.upgrade_protobuf
            && head.headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/x-protobuf");
        if protobuf {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers.remove(CONTENT_LENGTH);
            head.present = crate::http::scan::Present::of(&head.headers);
        }
        if head.version == Version::HTTP_2 {
            return Flow::Continue;
        }
        if !protobuf && !head.is_grpc() {
            return Flow::Continue;
        }
        exchange.state().put(name, Plain(protobuf));
        if self.0.ignore_query
            && let Some((path, _)) = head.path.as_str().split_once('?')
            && let Ok(path) = path.parse()
        {
            head.path = path;
        }
        if !protobuf {
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(async move {
            let Ok(seen) = gather::gather(body, LIMIT).await else { return too_large() };
            if !seen.complete {
                return too_large();
            }
            let mut framed = BytesMut::with_capacity(seen.bytes.len() + 5);
            framed.put_u8(0);
            framed.put_u32(u32::try_from(seen.bytes.len()).unwrap_or(u32::MAX));
            framed.extend_from_slice(&seen.bytes);
            exchange.grpc.set(true);
            *body = Body::text(framed.freeze());
            Flow::Continue
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Plain(plain) = exchange.state().take(name)?;
        // A head that says it all is left as it is.
        if http_body::Body::is_end_stream(reply.response.body()) {
            return None;
        }
        Some(Box::pin(async move {
            let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
            // A response that breaks off has no status, which is an error below.
            let (mut bytes, trailers, broken) =
                match http_body_util::Limited::new(body, LIMIT).collect().await {
                    Ok(all) => {
                        let trailers = all.trailers().cloned();
                        (all.to_bytes(), trailers, false)
                    }
                    Err(_) => (Bytes::new(), None, true),
                };
            let ended = reply.lease.take();
            if let Some(lease) = ended {
                lease.finish();
            }
            // Without trailers it is no answer to a call.
            let headers = reply.response.headers_mut();
            if trailers.is_none() && !broken {
                *reply.response.body_mut() = Body::text(bytes);
                return;
            }
            for name in ["grpc-status", "grpc-message"] {
                if let Some(value) = trailers.as_ref().and_then(|trailers| trailers.get(name)) {
                    headers.insert(name, value.clone());
                }
            }
            let ok = headers.get("grpc-status").is_some_and(|status| status == "0");
            if plain && bytes.len() >= 5 {
                bytes.advance(5);
            }
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            if !ok {
                *reply.response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            *reply.response.body_mut() = Body::text(bytes);
        }))
    }
}
