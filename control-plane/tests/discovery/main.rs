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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_issuers_are_fetched_for_proxies() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let issuer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = issuer.local_addr().unwrap();
    tokio::spawn(async move {
        let keys = r#"{"keys":[{"kty":"oct","k":"dGhlLWtleS1vZi10aGUtdGVzdA"}]}"#;
        while let Ok((mut stream, _)) = issuer.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let saild = Saild::start();
    saild.put(
        "tokens.yaml",
        &format!(
            "{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: tokens, \
             namespace: default}}, spec: {{jwtRules: [{{issuer: test, jwksUri: 'http://{address}/keys'}}]}}}}"
        ),
    );
    let mut xds =
        Xds::open(plain_channel(&saild).await, sidecar("ratings-v1", "10.1.0.9"), None).await.unwrap();
    // A listener may be sent before the policy is read, and before the keys are had.
    loop {
        let listeners = xds.until(LISTENER).await;
        let bytes = listeners.resources.iter().map(|listener| String::from_utf8_lossy(&listener.body));
        if bytes.collect::<String>().contains("dGhlLWtleS1vZi10aGUtdGVzdA") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_the_registry_is_known_proxies_are_told_to_come_back() {
    use std::io::{BufRead as _, BufReader};
    // An API server that never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(dir.path().join("kubeconfig"), config.to_string()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_saild"))
        .args(["discovery", "--registries", "Kubernetes", "--state-dir", "state"])
        .args(["--httpAddr", "127.0.0.1:0", "--httpsAddr", "127.0.0.1:0", "--grpcAddr", "127.0.0.1:0"])
        .args(["--secureGRPCAddr", "127.0.0.1:0", "--monitoringAddr", "127.0.0.1:0"])
        .current_dir(dir.path())
        .env("KUBECONFIG", dir.path().join("kubeconfig"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("saild listens")).unwrap();
    let address = |name: &str| {
        let from = line.find(name).unwrap() + name.len();
        let text: String =
            line[from..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
        text.parse::<std::net::SocketAddr>().unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let uri = format!("http://{}", address("grpc="));
    let channel = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let refused = Xds::open(channel, sidecar("ratings-v1", "10.1.0.9"), None).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let mut stream = std::net::TcpStream::connect(address("http=")).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_streams_and_the_process() {
    let mut saild = Saild::start();
    let mut xds =
        Xds::open(plain_channel(&saild).await, sidecar("ratings-v1", "10.1.0.9"), None).await.unwrap();
    let _ = xds.until(LISTENER).await;
    saild.terminate();
    let ended = loop {
        match xds.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert!(matches!(ended.code(), tonic::Code::Cancelled | tonic::Code::Unavailable), "{ended}");
    assert!(saild.wait().success());
}
