//! Spellings, headers kept, peers read.

use std::sync::Arc;

use http::HeaderMap;
use xds_api::google::protobuf::{Struct, Value, value::Kind};

use super::{Capture, Captured, PeerMetadata, ResponseFlag, ResponseFlags, details};

#[test]
fn flags_print_in_the_order_in_which_they_were_set() {
    let mut flags = ResponseFlags::default();
    assert_eq!(flags.to_string(), "-");
    flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
    flags.set(ResponseFlag::UpstreamConnectionFailure);
    assert_eq!(flags.to_string(), "URX,UF");
}

#[test]
fn details_have_no_spaces() {
    let text =
        details::upstream_reset(details::reset::REMOTE_CONNECTION_FAILURE, false, Some("Connection refused"));
    assert_eq!(text, "upstream_reset_before_response_started{remote_connection_failure|Connection_refused}");
    assert_eq!(details::rbac_denied(None), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn only_the_planned_headers_are_kept() {
    let mut plan = Capture::default();
    plan.request("User-Agent");
    plan.request(":path");
    let mut captured = Captured::default();
    captured.plan(&Arc::new(plan));
    let headers: HeaderMap = [("user-agent", "curl"), ("cookie", "secret")]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    captured.take_request(&headers);
    assert_eq!(captured.request("USER-AGENT"), Some("curl"));
    assert_eq!(captured.request("cookie"), None);
    assert_eq!(captured.response("server"), None);
}

#[test]
fn a_peer_survives_the_header() {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let mut node = Struct::default();
    node.fields.insert("NAME".to_owned(), text("reviews-v1-x"));
    node.fields.insert("NAMESPACE".to_owned(), text("default"));
    node.fields.insert("WORKLOAD_NAME".to_owned(), text("reviews-v1"));
    node.fields.insert("PROXY_CONFIG".to_owned(), text("private"));
    let mut labels = Struct::default();
    labels.fields.insert("service.istio.io/canonical-name".to_owned(), text("reviews"));
    labels.fields.insert("pod-template-hash".to_owned(), text("x"));
    labels.fields.insert("team".to_owned(), text("blue"));
    node.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) });

    let peer =
        PeerMetadata::from_header(PeerMetadata::header(&node, &["team".to_owned()]).as_bytes()).unwrap();
    assert_eq!(peer.workload, "reviews-v1");
    assert_eq!(peer.canonical_name, "reviews");
    let told: Vec<&str> = peer.labels.iter().map(|(name, _)| &**name).collect();
    assert_eq!(told, ["service.istio.io/canonical-name", "team"]);
    assert!(!PeerMetadata::exchange(&node, &[]).fields.contains_key("PROXY_CONFIG"));
    assert_eq!(PeerMetadata::from_header(b"not base64!"), None);
}

#[test]
fn a_peer_is_read_from_its_endpoint() {
    let peer = PeerMetadata::from_endpoint("reviews-v1;default;reviews;v1;Kubernetes").unwrap();
    assert_eq!((peer.canonical_revision.as_str(), peer.cluster.as_str()), ("v1", "Kubernetes"));
    assert_eq!(PeerMetadata::from_endpoint(";;;;"), None);
}
