//! The directory source as an operator sees it: files come, break, heal and go while the registry runs.

use std::path::Path;
use std::time::Duration;

use saild_model::{Health, Mesh};
use saild_registry::{Directory, Options, Registry, Update, Updates};

const BOUND: Duration = Duration::from_secs(10);

const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  clusterIP: 10.0.0.1
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: web}, {name: tcp-x, port: 90, targetPort: 9090}]
";

fn pod(name: &str, ip: &str, ready: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: reviews, version: v1, pod-template-hash: abc, security.istio.io/tlsMode: istio}}
  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: reviews-v1-abc, uid: x, controller: true}}]
spec:
  serviceAccountName: bookinfo-reviews
  nodeName: node-a
  containers: [{{name: reviews, image: x, ports: [{{containerPort: 9080, name: web}}]}}]
status:
  podIP: {ip}
  conditions: [{{type: Ready, status: '{ready}'}}]
"
    )
}

/// Writes as a careful writer does: aside, then renamed.
fn write(directory: &Path, name: &str, text: &str) {
    let aside = directory.join(format!(".{name}.tmp"));
    std::fs::write(&aside, text).expect("write");
    std::fs::rename(aside, directory.join(name)).expect("rename");
}

fn start(directory: &Path) -> (Registry, Updates, saild_registry::directory::Statuses) {
    let source = Directory::open(directory).expect("directory");
    let statuses = source.statuses();
    let (registry, updates) = Registry::start(source, Options::default());
    (registry, updates, statuses)
}

/// Takes updates until the mesh is as wanted; all changes together.
async fn until(updates: &mut Updates, wanted: impl Fn(&Mesh) -> bool) -> Update {
    let wait = async {
        let mut update = updates.next().await;
        while !wanted(&update.mesh) {
            let next = updates.next().await;
            update.mesh = next.mesh;
            update.changes.merge(next.changes);
        }
        update
    };
    tokio::time::timeout(BOUND, wait).await.expect("the mesh must become as wanted")
}

fn addresses(mesh: &Mesh, health: Health) -> Vec<String> {
    let Some(service) = mesh.services().iter().find(|s| &*s.name == "reviews") else { return Vec::new() };
    let list = mesh.endpoints(service, "http");
    list.iter().filter(|e| e.health == health).map(|e| format!("{}:{}", e.address, e.port)).collect()
}

#[tokio::test]
async fn services_and_pods_become_endpoints() {
    let directory = tempfile::tempdir().expect("directory");
    write(directory.path(), "service.yaml", SERVICE);
    write(
        directory.path(),
        "pods.yaml",
        &format!("{}---{}", pod("a", "10.1.0.1", "True"), pod("b", "10.1.0.2", "False")),
    );
    write(
        directory.path(),
        "node.yaml",
        "{apiVersion: v1, kind: Node, metadata: {name: node-a, labels: {topology.kubernetes.io/region: eu}}}",
    );
    let (_registry, mut updates, statuses) = start(directory.path());
    let update = tokio::time::timeout(BOUND, updates.next()).await.expect("first update");
    assert!(update.changes.full);
    assert_eq!(addresses(&update.mesh, Health::Healthy), ["10.1.0.1:9080"]);
    assert_eq!(addresses(&update.mesh, Health::Unhealthy), ["10.1.0.2:9080"]);
    let service = update.mesh.services()[0].clone();
    assert_eq!(&*service.hostname, "reviews.default.svc.cluster.local");
    let tcp = update.mesh.endpoints(&service, "tcp-x");
    assert_eq!(tcp[0].port, 9090);
    assert_eq!(tcp[0].workload_name, "reviews-v1");
    assert_eq!(tcp[0].locality.region, "eu");
    assert_eq!(tcp[0].service_account.as_deref(), Some("bookinfo-reviews"));
    assert_eq!(statuses.get().iter().map(|s| s.objects).sum::<usize>(), 4);

    write(
        directory.path(),
        "pods.yaml",
        &format!("{}---{}", pod("a", "10.1.0.1", "True"), pod("b", "10.1.0.2", "True")),
    );
    let update = until(&mut updates, |mesh| addresses(mesh, Health::Healthy).len() == 2).await;
    assert!(update.changes.endpoints.contains("reviews.default.svc.cluster.local"), "{:?}", update.changes);
    assert!(!update.changes.full);

    std::fs::remove_file(directory.path().join("pods.yaml")).expect("remove");
    until(&mut updates, |mesh| addresses(mesh, Health::Healthy).is_empty()).await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_content() {
    let directory = tempfile::tempdir().expect("directory");
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: NAME, labels: {a: b}}}";
    write(directory.path(), "a.yaml", &namespace.replace("NAME", "a"));
    let (registry, mut updates, statuses) = start(directory.path());
    until(&mut updates, |mesh| mesh.namespace("a").is_some()).await;

    let broken = r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad}
spec: {hosts: [x], http: [{rout: []}]}
";
    write(directory.path(), "a.yaml", broken);
    write(directory.path(), "b.yaml", &namespace.replace("NAME", "b"));
    until(&mut updates, |mesh| mesh.namespace("b").is_some()).await;
    assert!(registry.mesh().namespace("a").is_some());
    let wait = async {
        while statuses.get()[0].error.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, wait).await.expect("the error must be told");
    let error = statuses.get()[0].error.clone().unwrap_or_default();
    assert_eq!(error, "document 1: VirtualService default/bad: spec.http[0].rout: unknown field");

    write(directory.path(), "a.yaml", &namespace.replace("NAME", "c"));
    until(&mut updates, |mesh| mesh.namespace("c").is_some() && mesh.namespace("a").is_none()).await;
    assert_eq!(statuses.get()[0].error, None);
}

#[tokio::test]
async fn swapped_links_and_new_directories_are_seen() {
    let directory = tempfile::tempdir().expect("directory");
    let elsewhere = tempfile::tempdir().expect("directory");
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: NAME}}";
    for name in ["one", "two"] {
        std::fs::create_dir(elsewhere.path().join(name)).expect("directory");
        write(&elsewhere.path().join(name), "ns.yaml", &namespace.replace("NAME", name));
    }
    let link = directory.path().join("data");
    std::os::unix::fs::symlink(elsewhere.path().join("one"), &link).expect("link");
    let (_registry, mut updates, _) = start(directory.path());
    until(&mut updates, |mesh| mesh.namespace("one").is_some()).await;

    let aside = directory.path().join("aside");
    std::os::unix::fs::symlink(elsewhere.path().join("two"), &aside).expect("link");
    std::fs::rename(aside, &link).expect("rename");
    until(&mut updates, |mesh| mesh.namespace("two").is_some() && mesh.namespace("one").is_none()).await;

    let nested = directory.path().join("objects/namespaces");
    std::fs::create_dir_all(&nested).expect("directory");
    write(
        &nested,
        "three.json",
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "three"}}"#,
    );
    until(&mut updates, |mesh| mesh.namespace("three").is_some()).await;
}

#[tokio::test]
async fn the_mesh_config_map_is_followed() {
    let directory = tempfile::tempdir().expect("directory");
    let (_registry, mut updates, _) = start(directory.path());
    let update = tokio::time::timeout(BOUND, updates.next()).await.expect("first update");
    assert_eq!(update.mesh.settings().trust_domain, "cluster.local");
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'trustDomain: example'}}";
    write(directory.path(), "mesh.yaml", map);
    let update = until(&mut updates, |mesh| mesh.settings().trust_domain == "example").await;
    assert!(update.changes.full);
}
