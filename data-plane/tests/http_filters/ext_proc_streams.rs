//! A processor that plays a script: streamed and duplex bodies, trailers, answers of its own, failures.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response;
use xds_api::envoy::r#type::v3::HttpStatus;

use super::grpc::{self, Say};
use super::h2;
use super::setup::{APP, HTTP2, bootstrap, cluster, filter, logged, outcome, raw};
use super::support::{Backend, Proxy};

type Script = fn(&mut Vec<proc::ProcessingRequest>) -> Vec<Say<proc::ProcessingResponse>>;

/// A processor that is given all that it heard, each time it hears something; and what it heard.
fn processor(script: Script) -> (SocketAddr, Receiver<proc::ProcessingRequest>) {
    let (send, heard) = mpsc::channel();
    let address = grpc::play(move |_| {
        let send = send.clone();
        let mut all = Vec::new();
        move |message: Option<proc::ProcessingRequest>| {
            let Some(message) = message else { return vec![Say::End(0, "")] };
            let _ = send.send(message.clone());
            all.push(message);
            script(&mut all)
        }
    });
    (address, heard)
}

fn say(response: Response) -> Say<proc::ProcessingResponse> {
    Say::Message(proc::ProcessingResponse { response: Some(response), ..Default::default() })
}

fn header(key: &str, value: &str) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: key.to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn setting(key: &str, value: &str) -> proc::HeaderMutation {
    proc::HeaderMutation { set_headers: vec![header(key, value)], ..Default::default() }
}

fn body(mutation: proc::body_mutation::Mutation) -> proc::BodyResponse {
    let mutation = proc::BodyMutation { mutation: Some(mutation) };
    proc::BodyResponse {
        response: Some(proc::CommonResponse { body_mutation: Some(mutation), ..Default::default() }),
    }
}

fn streamed(text: &str, end: bool) -> proc::BodyResponse {
    body(proc::body_mutation::Mutation::StreamedResponse(proc::StreamedBodyResponse {
        body: text.into(),
        end_of_stream: end,
        ..Default::default()
    }))
}

fn upper(piece: &proc::HttpBody) -> proc::BodyResponse {
    body(proc::body_mutation::Mutation::Body(piece.body.to_ascii_uppercase()))
}

/// Yes to everything, with bodies in capitals and a trailer.
fn yes(message: &proc::ProcessingRequest) -> Say<proc::ProcessingResponse> {
    let trailers = proc::TrailersResponse { header_mutation: Some(setting("x-more", "trailer")) };
    say(match message.request.as_ref().unwrap() {
        Request::RequestHeaders(_) => Response::RequestHeaders(proc::HeadersResponse::default()),
        Request::ResponseHeaders(_) => Response::ResponseHeaders(proc::HeadersResponse::default()),
        Request::RequestBody(piece) => Response::RequestBody(upper(piece)),
        Request::ResponseBody(piece) => Response::ResponseBody(upper(piece)),
        Request::RequestTrailers(_) => Response::RequestTrailers(trailers),
        Request::ResponseTrailers(_) => Response::ResponseTrailers(trailers),
    })
}

fn proxy(config: &str, app: SocketAddr, service: SocketAddr) -> Proxy {
    proxy_to(config, &cluster("app", &[app], ""), service)
}

/// In front of an upstream that answers with what it got, and a trailer.
fn echoing(config: &str, service: SocketAddr) -> Proxy {
    let echo = h2::serve(|asked| {
        let more = asked.trailers.iter().map(|(name, value)| format!("|{name}={}", value.to_str().unwrap()));
        let body = format!("{}{}", asked.text(), more.collect::<String>());
        h2::Message { body: body.into(), trailers: h2::map(&[("x-t", "end")]), ..Default::default() }
    });
    proxy_to(config, &cluster("app", &[echo], HTTP2), service)
}

fn proxy_to(config: &str, app: &str, service: SocketAddr) -> Proxy {
    let config = format!(
        "ext_proc.v3.ExternalProcessor, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}, {config}"
    );
    let clusters = app.to_owned() + &cluster("service", &[service], HTTP2);
    Proxy::ready(&bootstrap(&filter("proc", &config), APP, &clusters), &[])
}

const LONG: &str = "message_timeout: 10s, ";

fn get(to: SocketAddr) -> String {
    raw(to, "GET /a HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
}

fn post(to: SocketAddr, body: &str) -> String {
    let length = body.len();
    raw(
        to,
        &format!(
            "POST /a HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// A request in two pieces, and what comes back: body and trailers.
fn call(to: SocketAddr, trailers: &[(&str, &str)]) -> String {
    let answer = h2::call(to, "POST", "/a", &[], &[b"hello", b" world"], trailers);
    let more = answer.trailers.iter().map(|(name, value)| format!("|{name}={}", value.to_str().unwrap()));
    format!("{} {}{}", answer.status, answer.text(), more.collect::<String>())
}

#[test]
fn pieces_are_asked_about_before_the_ones_before_them_are_answered() {
    // It answers nothing about the body before all of it was there.
    let (service, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::RequestBody(piece) if !piece.end_of_stream => Vec::new(),
        Request::RequestBody(_) => {
            let bodies =
                all.iter().filter(|message| matches!(message.request, Some(Request::RequestBody(_))));
            bodies.map(yes).collect()
        }
        _ => vec![yes(all.last().unwrap())],
    });
    let proxy = echoing(&format!("{LONG}processing_mode: {{request_body_mode: STREAMED}}"), service);
    assert_eq!(call(proxy.listener("l"), &[]), "200 HELLO WORLD|x-t=end");
    assert_eq!(outcome(&post(proxy.listener("l"), "abc")), "200 ABC");
}

#[test]
fn streamed_bodies_and_trailers_are_changed_both_ways() {
    let (service, heard) = processor(|all| vec![yes(all.last().unwrap())]);
    let mode = "{request_body_mode: STREAMED, request_trailer_mode: SEND, response_body_mode: STREAMED, \
                response_trailer_mode: SEND}";
    let proxy = echoing(&format!("{LONG}processing_mode: {mode}"), service);
    let answer = call(proxy.listener("l"), &[("x-q", "z")]);
    assert_eq!(answer, "200 HELLO WORLD|X-Q=Z|X-MORE=TRAILER|x-t=end|x-more=trailer");
    let heard: Vec<_> = heard.try_iter().collect();
    let ends = heard.iter().filter_map(|message| match message.request.as_ref()? {
        Request::RequestBody(piece) | Request::ResponseBody(piece) => Some(piece.end_of_stream),
        _ => None,
    });
    assert!(ends.into_iter().all(|end| !end), "{heard:?}");
    let config = heard[0].protocol_config.as_ref().unwrap();
    assert_eq!((config.request_body_mode, config.response_body_mode), (1, 1));
    assert!(heard[1..].iter().all(|message| message.protocol_config.is_none()));
    assert_eq!(proxy.stat("http.in.ext_proc.stream_msgs_sent"), Some(heard.len() as i64));
    assert_eq!(proxy.stat("http.in.ext_proc.stream_msgs_received"), Some(heard.len() as i64));
    assert_eq!(proxy.stat("http.in.ext_proc.streams_started"), Some(1));
}

#[test]
fn duplex_bodies_are_what_the_service_sends() {
    // It answers when everything was there, heads included.
    let (service, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::RequestTrailers(_) => vec![
            say(Response::RequestHeaders(proc::HeadersResponse {
                response: Some(proc::CommonResponse {
                    header_mutation: Some(setting("x-head", "late")),
                    ..Default::default()
                }),
            })),
            say(Response::RequestBody(streamed("one ", false))),
            say(Response::RequestBody(streamed("two ", false))),
            say(Response::RequestBody(streamed("three", false))),
            yes(all.last().unwrap()),
        ],
        Request::ResponseTrailers(_) => vec![
            say(Response::ResponseHeaders(proc::HeadersResponse::default())),
            say(Response::ResponseBody(streamed("<", false))),
            say(Response::ResponseBody(streamed(">", false))),
            yes(all.last().unwrap()),
        ],
        _ => Vec::new(),
    });
    let mode = "{request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND, response_body_mode: \
                FULL_DUPLEX_STREAMED, response_trailer_mode: SEND}";
    let proxy = echoing(&format!("{LONG}processing_mode: {mode}"), service);
    assert_eq!(call(proxy.listener("l"), &[("x-q", "z")]), "200 <>|x-t=end|x-more=trailer");
}

#[test]
fn duplex_bodies_end_when_the_service_says_so() {
    let (service, heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::RequestBody(piece) if !piece.end_of_stream => Vec::new(),
        Request::RequestBody(_) => vec![
            say(Response::RequestBody(streamed("more ", false))),
            say(Response::RequestBody(streamed("text", true))),
        ],
        _ => vec![yes(all.last().unwrap())],
    });
    let mode = "{request_body_mode: FULL_DUPLEX_STREAMED, request_trailer_mode: SEND}";
    let proxy = echoing(&format!("message_timeout: 0.5s, processing_mode: {mode}"), service);
    assert_eq!(outcome(&post(proxy.listener("l"), "abc")), "200 more text");
    assert!(heard.try_iter().count() >= 3);
    assert_eq!(proxy.stat("http.in.ext_proc.streams_failed"), None);
}

#[test]
fn bodies_may_follow_a_head_that_is_not_answered() {
    let (service, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::RequestBody(piece) if piece.end_of_stream => all.iter().map(yes).collect(),
        Request::RequestHeaders(_) | Request::RequestBody(_) => Vec::new(),
        _ => vec![yes(all.last().unwrap())],
    });
    let config =
        "processing_mode: {request_body_mode: STREAMED}, send_body_without_waiting_for_header_response: true";
    let proxy = echoing(&format!("{LONG}{config}"), service);
    assert_eq!(outcome(&post(proxy.listener("l"), "abc")), "200 ABC");
}

fn immediate() -> Say<proc::ProcessingResponse> {
    say(Response::ImmediateResponse(proc::ImmediateResponse {
        status: Some(HttpStatus { code: 418 }),
        headers: Some(setting("x-why", "tea")),
        body: b"short and stout".to_vec(),
        details: "a teapot".to_owned(),
        ..Default::default()
    }))
}

#[test]
fn the_service_may_answer_in_the_upstreams_place() {
    let app = Backend::start("app");
    let (at_head, _heard) = processor(|_| vec![immediate()]);
    let answer = |proxy: &Proxy| {
        let answer = post(proxy.listener("l"), "abc");
        let why = if answer.contains("x-why: tea") { " tea" } else { "" };
        format!("{}{why}; {}", outcome(&answer), logged(proxy, 1))
    };
    let one = proxy(LONG, app.address, at_head);
    assert_eq!(answer(&one), "418 short and stout tea; 418 a_teapot -");
    assert_eq!(one.stat("http.in.ext_proc.immediate_responses_sent"), Some(1));
    let none = proxy(&format!("{LONG}disable_immediate_response: true"), app.address, at_head);
    assert_eq!(answer(&none), "500 ; 500 unhandled_immediate_response_due_to_config_disabled_it -");
    for mode in ["STREAMED", "BUFFERED"] {
        let (at_body, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
            Request::RequestBody(_) => vec![immediate()],
            _ => vec![yes(all.last().unwrap())],
        });
        let proxy =
            proxy(&format!("{LONG}processing_mode: {{request_body_mode: {mode}}}"), app.address, at_body);
        let got = answer(&proxy);
        // Whether the rest of the request still came is a matter of time.
        assert!(got.starts_with("418 short and stout tea; 418 a_teapot"), "{mode}: {got}");
    }
    let (at_response, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::ResponseHeaders(_) => vec![immediate()],
        _ => vec![yes(all.last().unwrap())],
    });
    let late = proxy(LONG, app.address, at_response);
    assert_eq!(answer(&late), "418 short and stout tea; 418 a_teapot -");
}

#[test]
fn a_service_that_fails_fails_the_request_unless_it_may() {
    let app = Backend::start("app");
    let answer = |config: &str, service: SocketAddr| {
        let proxy = proxy(config, app.address, service);
        let answer = outcome(&get(proxy.listener("l")));
        let names = [
            "streams_failed",
            "streams_closed",
            "failure_mode_allowed",
            "message_timeouts",
            "spurious_msgs_received",
        ];
        let stats: Vec<_> = names
            .iter()
            .filter_map(|name| Some(format!("{name}={}", proxy.stat(&format!("http.in.ext_proc.{name}"))?)))
            .filter(|text| !text.ends_with("=0"))
            .collect();
        format!("{answer}; {}; {}", logged(&proxy, 1), stats.join(" "))
    };
    let allow = "failure_mode_allow: true, ";
    let (silent, _heard) = processor(|_| Vec::new());
    let (failing, _heard) = processor(|_| vec![Say::End(13, "on no account")]);
    let (leaving, _heard) = processor(|_| vec![Say::End(0, "")]);
    let (confused, _heard) =
        processor(|_| vec![say(Response::ResponseHeaders(proc::HeadersResponse::default()))]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (
            "",
            silent,
            "504 ; 504 ext_proc_error_per-message_timeout_exceeded -; streams_closed=1 message_timeouts=1",
        ),
        (
            allow,
            silent,
            "200 app; 200 via_upstream -; streams_closed=1 failure_mode_allowed=1 message_timeouts=1",
        ),
        (
            LONG,
            failing,
            "500 ; 500 ext_proc_error_gRPC_error_13{on_no_account{via_upstream}} -; streams_failed=1",
        ),
        (
            allow,
            failing,
            "200 app; 200 via_upstream -; streams_failed=1 streams_closed=1 failure_mode_allowed=1",
        ),
        (
            "status_on_error: {code: 503}, ",
            failing,
            "503 ; 503 ext_proc_error_gRPC_error_13{on_no_account{via_upstream}} -; streams_failed=1",
        ),
        (LONG, leaving, "200 app; 200 via_upstream -; streams_closed=1"),
        (LONG, confused, "500 ; 500 spurious_message -; streams_closed=1 spurious_msgs_received=1"),
        (
            allow,
            confused,
            "200 app; 200 via_upstream -; streams_closed=1 failure_mode_allowed=1 spurious_msgs_received=1",
        ),
        (
            LONG,
            closed,
            "500 ; 500 ext_proc_error_gRPC_error_14{upstream_connect_error_or_disconnect/reset_before_headers._reset_reason:_remote_connection_failure{upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}}} -; streams_failed=1",
        ),
    ];
    let mut wrong = Vec::new();
    for (config, service, expected) in cases {
        let got = answer(config, service);
        if got != expected {
            wrong.push(format!("{config:?}\n  got      {got}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn more_time_may_be_asked_for() {
    let app = Backend::start("app");
    let (service, _heard) = processor(|all| {
        let longer = proc::ProcessingResponse {
            override_message_timeout: Some(xds_api::google::protobuf::Duration { seconds: 8, nanos: 0 }),
            ..Default::default()
        };
        let message = yes(all.last().unwrap());
        match all.len() {
            1 => {
                std::thread::sleep(Duration::from_millis(100));
                vec![Say::Message(longer), message]
            }
            _ => vec![message],
        }
    });
    let config = "message_timeout: 2s, max_message_timeout: 10s";
    let proxy = proxy(config, app.address, service);
    assert_eq!(outcome(&get(proxy.listener("l"))), "200 app");
    assert_eq!(proxy.stat("http.in.ext_proc.override_message_timeout_received"), Some(1));
}

#[test]
fn who_only_watches_is_not_waited_for() {
    let (service, heard) = processor(|_| Vec::new());
    let mode = "{request_body_mode: STREAMED, response_body_mode: STREAMED, response_trailer_mode: SEND}";
    let config = format!("observability_mode: true, deferred_close_timeout: 1s, processing_mode: {mode}");
    let proxy = echoing(&config, service);
    let answer = post(proxy.listener("l"), "abc");
    assert_eq!(outcome(&answer), "200 abc");
    let mut seen = Vec::new();
    while let Ok(message) = heard.recv_timeout(Duration::from_secs(10)) {
        assert!(message.observability_mode);
        seen.push(match message.request.unwrap() {
            Request::RequestHeaders(_) => "head".to_owned(),
            Request::RequestBody(piece) => String::from_utf8(piece.body).unwrap(),
            Request::ResponseHeaders(_) => "answer".to_owned(),
            Request::ResponseBody(piece) => String::from_utf8(piece.body).unwrap(),
            Request::ResponseTrailers(_) => "end".to_owned(),
            Request::RequestTrailers(_) => "?".to_owned(),
        });
        if seen.last().unwrap() == "end" {
            break;
        }
    }
    seen.retain(|text| !text.is_empty());
    assert_eq!(seen, ["head", "abc", "answer", "abc", "end"]);
}

#[test]
fn a_body_of_another_length_needs_another_content_length() {
    let (service, _heard) = processor(|all| match all.last().unwrap().request.as_ref().unwrap() {
        Request::RequestBody(_) => {
            vec![say(Response::RequestBody(body(proc::body_mutation::Mutation::Body(b"longer".to_vec()))))]
        }
        _ => vec![yes(all.last().unwrap())],
    });
    let proxy = echoing(&format!("{LONG}processing_mode: {{request_body_mode: BUFFERED}}"), service);
    let answer = format!("{}; {}", outcome(&post(proxy.listener("l"), "abc")), logged(&proxy, 1));
    assert_eq!(answer, "500 ; 500 mismatch_between_content_length_and_the_length_of_the_mutated_body -");
}

#[test]
fn responses_may_be_streamed_in_the_upstreams_place() {
    use proc::streamed_immediate_response::Response as Part;
    let (service, _heard) = processor(|all| {
        let part = |part| {
            say(Response::StreamedImmediateResponse(proc::StreamedImmediateResponse { response: Some(part) }))
        };
        if all.len() > 1 {
            return Vec::new();
        }
        let headers = core::HeaderMap {
            headers: [(":status", "203"), ("x-why", "tea")]
                .map(|(key, value)| core::HeaderValue {
                    key: key.to_owned(),
                    raw_value: value.into(),
                    ..Default::default()
                })
                .to_vec(),
        };
        let piece = |text: &str, end| {
            Part::BodyResponse(proc::StreamedBodyResponse {
                body: text.into(),
                end_of_stream: end,
                ..Default::default()
            })
        };
        vec![
            part(Part::HeadersResponse(proc::HttpHeaders { headers: Some(headers), ..Default::default() })),
            part(piece("one ", false)),
            part(piece("two", true)),
        ]
    });
    let proxy = echoing(LONG, service);
    let answer = get(proxy.listener("l"));
    assert!(answer.contains("x-why: tea"), "{answer}");
    assert_eq!(
        format!("{}; {}", outcome(&answer), logged(&proxy, 1)),
        "203 one two; 203 ext_proc_local_response -"
    );
}
