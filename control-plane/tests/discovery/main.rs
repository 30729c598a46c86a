//! saild as a process: configuration over xDS, certificates, webhooks, restarts.

mod support;

use std::process::Command;

use serde_json::json;
use support::xds::{Xds, describe, plain_channel, sidecar, tls_channel};
use support::{Saild, wait_for};
use xds_api::type_url::{CLUSTER, ENDPOINT, LISTENER, SECRET};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";
const RATINGS: &str = "outbound|9080||ratings.default.svc.cluster.local";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_only_what_changed() {
    let saild = Saild::start();
    saild.put_pod("reviews-v1", "reviews", "10.1.0.4");
    wait_for("the pod is known", || saild.get("/debug/endpointz").contains("10.1.0.4").then_some(()));
    let mut xds =
        Xds::open(plain_channel(&saild).await, sidecar("ratings-v1", "10.1.0.9"), None).await.unwrap();
    let clusters = xds.until(CLUSTER).await;
    assert!(describe(&clusters).contains(&format!("+{REVIEWS}")), "{:?}", describe(&clusters));
    let listeners = xds.until(LISTENER).await;
    assert!(listeners.resources.iter().any(|listener| listener.name.as_ref() == "virtualOutbound"));

    xds.watch(ENDPOINT, &[REVIEWS, RATINGS]).await;
    assert_eq!(xds.until(ENDPOINT).await.resources.len(), 2);
    saild.put_pod("reviews-v2", "reviews", "10.1.0.5");
    let pushed = xds.next().await.unwrap();
    assert_eq!((pushed.type_url.as_str(), describe(&pushed)), (ENDPOINT, vec![format!("+{REVIEWS}")]));

    // A broken file changes nothing, and says why where one looks; the next good one is used.
    saild.put(
        "pod-reviews-v2.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: reviews-v2}, spec: {containers: 7}}",
    );
    wait_for("the error is shown", || {
        let files = saild.get_json("/debug/filez");
        files.as_array()?.iter().find(|file| file["error"].is_string()).cloned()
    });
    saild.put_pod("reviews-v3", "reviews", "10.1.0.6");
    let pushed = xds.next().await.unwrap();
    let endpoints = String::from_utf8_lossy(&pushed.resources[0].body).into_owned();
    assert!(["10.1.0.4", "10.1.0.5", "10.1.0.6"].iter().all(|address| endpoints.contains(address)));

    let service = "{apiVersion: v1, kind: Service, metadata: {name: details, namespace: default}, \
        spec: {clusterIP: 10.96.0.12, selector: {app: details}, ports: [{name: http, port: 9080}]}}";
    saild.put("details.yaml", service);
    let pushed = xds.until(CLUSTER).await;
    assert_eq!(describe(&pushed), ["+outbound|9080||details.default.svc.cluster.local"]);

    wait_for("all is accepted", || {
        let synced = saild.get_json("/debug/syncz");
        (synced[0]["cluster_sync"] == "SYNCED" && synced[0]["listener_sync"] == "SYNCED").then_some(())
    });
    assert_eq!(saild.get_json("/debug/adsz")["totalClients"], 1);
    let dump = saild.get("/debug/config_dump?proxyID=ratings-v1.default");
    assert!(dump.contains(REVIEWS) && dump.contains("ClustersConfigDump"), "{dump}");
    assert!(saild.get("/debug/registryz").contains("details.default.svc.cluster.local"));
    assert!(saild.get("/debug/endpointz").contains("10.1.0.6"));
    assert!(saild.get("/metrics").contains("pilot_xds 1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_workloads_that_show_who_they_are() {
    let saild = Saild::start();
    let svid = saild.certificate("default", "bookinfo-reviews").await.unwrap();
    assert_eq!(
        svid.spiffe_id().unwrap().to_string(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert_eq!(saild.certificate("", "").await.unwrap_err().code(), tonic::Code::Unauthenticated);

    // With the token, as at the start, and with the certificate, as later.
    let node = || sidecar("reviews-v1", "10.1.0.4");
    let token = saild.token("default", "bookinfo-reviews");
    let mut xds = Xds::open(tls_channel(&saild, None).await, node(), Some(&token)).await.unwrap();
    assert_eq!(xds.next().await.unwrap().type_url, CLUSTER);
    let mut xds = Xds::open(tls_channel(&saild, Some(&svid)).await, node(), None).await.unwrap();
    assert_eq!(xds.next().await.unwrap().type_url, CLUSTER);
    assert!(saild.get("/debug/connections").contains("default/bookinfo-reviews"));

    let refused = Xds::open(tls_channel(&saild, None).await, node(), None).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let token = saild.token("other", "bookinfo-reviews");
    let mut xds = Xds::open(tls_channel(&saild, None).await, node(), Some(&token)).await.unwrap();
    let refused = xds.next().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("namespace"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_survives_a_restart() {
    let mut saild = Saild::start();
    let root = saild.root();
    let before = saild.certificate("default", "bookinfo-reviews").await.unwrap();
    saild.restart();
    assert_eq!(saild.root(), root);
    let node = sidecar("reviews-v1", "10.1.0.4");
    let mut xds = Xds::open(tls_channel(&saild, Some(&before)).await, node, None).await.unwrap();
    assert_eq!(xds.next().await.unwrap().type_url, CLUSTER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_inject_and_validate() {
    let saild = Saild::start();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "reviews-", "labels": {"app": "reviews"}},
        "spec": {"containers": [{"name": "reviews", "image": "reviews"}]},
    });
    let answer = saild.review("/inject", pod.clone()).await;
    assert_eq!((&answer["uid"], &answer["allowed"]), (&json!("u1"), &json!(true)));
    assert_eq!(answer["patchType"], "JSONPatch");
    let mut out = pod;
    out["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    assert_eq!(saild.review("/inject", out).await.get("patch"), None);

    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "reviews"},
        "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"hostt": "reviews"}}]}]},
    });
    let answer = saild.review("/validate", rule).await;
    assert_eq!(answer["allowed"], false);
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("VirtualService default/reviews") && message.contains("hostt"), "{message}");
}

#[test]
fn what_is_missing_or_taken_is_one_clear_line() {
    let check = |arguments: &[&str], expect: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_saild"))
            .arg("discovery")
            .args(arguments)
            .args(["--log_output_level", "error", "--state-dir", "state"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(text.lines().count() == 1 && text.contains(expect), "{text}");
    };
    check(&[], "--registry-dir");
    check(&["--registry-dir", "nowhere"], "nowhere is not a directory");
    check(&["--registry-dir", ".", "--grpcAddr", "15010"], "--grpcAddr");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(&["--registry-dir", ".", "--httpAddr", &address], "choose another with --httpAddr");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_only_to_those_who_show_who_they_are() {
    let saild = Saild::start();
    let key = "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: shop, namespace: default}, \
        data: {tls.crt: Y2hhaW4=, tls.key: a2V5}}";
    saild.put("secret.yaml", key);
    let token = saild.token("default", "gateway");
    let node = || sidecar("gateway-1", "10.1.0.7");
    let mut plain = Xds::open(plain_channel(&saild).await, node(), None).await.unwrap();
    plain.watch(SECRET, &["kubernetes://shop"]).await;
    assert_eq!(describe(&plain.until(SECRET).await), ["-kubernetes://shop"]);

    let mut secure = Xds::open(tls_channel(&saild, None).await, node(), Some(&token)).await.unwrap();
    secure.watch(SECRET, &["kubernetes://shop"]).await;
    // A refusal at first means that the file had not been read yet.
    while describe(&secure.until(SECRET).await) != ["+kubernetes://shop"] {}
}
