//! How objects are shown: tables, and the words for a pod's state.

use comfy_table::{Table, presets};
use serde_json::Value;

use super::kind::Kind;
use super::protocol::{PodStatus, Status};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}

/// Lines without trailing blanks.
fn show(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Containers of a pod that are ready, of how many. Sidecars among the init containers count.
pub(crate) fn ready(pod: &Value) -> (usize, usize) {
    let main = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let ready = main.filter(|status| status["ready"] == true).count();
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let sidecars: Vec<&Value> = pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|container| container["restartPolicy"] == "Always")
        .collect();
    let init = pod["status"]["initContainerStatuses"].as_array();
    let is_ready =
        |name: &Value| init.into_iter().flatten().any(|one| one["name"] == *name && one["ready"] == true);
    (ready + sidecars.iter().filter(|one| is_ready(&one["name"])).count(), total + sidecars.len())
}

/// How often containers of a pod were started again.
pub(crate) fn restarts(pod: &Value) -> i64 {
    let all = ["containerStatuses", "initContainerStatuses"];
    all.iter()
        .flat_map(|field| pod["status"][field].as_array().into_iter().flatten())
        .filter_map(|status| status["restartCount"].as_i64())
        .sum()
}

/// One word on a pod, with the reason when something is wrong.
pub(crate) fn pod_state(pod: &Value) -> String {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    let status = &pod["status"];
    if let Some(message) = status["message"].as_str() {
        return format!("{}: {message}", status["reason"].as_str().unwrap_or("Pending"));
    }
    let waiting = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .flat_map(|field| status[field].as_array().into_iter().flatten())
        .map(|one| &one["state"]["waiting"])
        .find(|waiting| waiting["reason"].as_str().is_some_and(|reason| reason != "ContainerCreating"));
    if let Some(waiting) = waiting {
        let reason = waiting["reason"].as_str().unwrap_or_default();
        return match waiting["message"].as_str() {
            Some(message) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        };
    }
    status["phase"].as_str().unwrap_or("Pending").to_owned()
}

/// Time since an object was made.
fn age(object: &Value) -> String {
    let made = object["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let Some(made) = made else { return String::new() };
    let seconds = (jiff::Timestamp::now().as_second() - made.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How much a table tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Short,
    Wide,
}

/// Objects of a kind as a table.
pub(crate) fn objects(kind: &Kind, objects: &[Value], detail: Detail, with_namespace: bool) -> String {
    let wide = detail == Detail::Wide;
    let columns: &[&str] = match (kind.name.as_str(), wide) {
        ("Pod", false) => &["READY", "STATUS", "RESTARTS"],
        ("Pod", true) => &["READY", "STATUS", "RESTARTS", "ADDRESS", "IMAGES"],
        ("Service", false) => &["TYPE", "CLUSTER-IP", "PORTS"],
        ("Service", true) => &["TYPE", "CLUSTER-IP", "PORTS", "SELECTOR"],
        ("Deployment", _) => &["READY", "UP-TO-DATE"],
        ("Namespace", _) => &["LABELS"],
        ("ConfigMap" | "Secret", _) => &["DATA"],
        ("VirtualService" | "ServiceEntry", _) => &["HOSTS"],
        ("DestinationRule", _) => &["HOST"],
        _ => &[],
    };
    let mut header = Vec::new();
    if with_namespace {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    header.extend(columns);
    header.push("AGE");
    let mut table = table(&header);
    for object in objects {
        let mut row = Vec::new();
        if with_namespace {
            row.push(text(&object["metadata"]["namespace"]));
        }
        row.push(text(&object["metadata"]["name"]));
        row.extend(columns.iter().map(|column| cell(object, column)));
        row.push(age(object));
        table.add_row(row);
    }
    show(&table)
}

fn cell(object: &Value, column: &str) -> String {
    let spec = &object["spec"];
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",");
    let pairs = |value: &Value| {
        let pairs =
            value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
        pairs.collect::<Vec<_>>().join(",")
    };
    match column {
        "READY" if object["kind"] == "Pod" => {
            let (ready, total) = ready(object);
            format!("{ready}/{total}")
        }
        "READY" => format!(
            "{}/{}",
            object["status"]["readyReplicas"].as_u64().unwrap_or(0),
            spec["replicas"].as_u64().unwrap_or(1)
        ),
        "UP-TO-DATE" => text(&object["status"]["updatedReplicas"]),
        "STATUS" => pod_state(object),
        "RESTARTS" => restarts(object).to_string(),
        "ADDRESS" => text(&object["status"]["podIP"]),
        "IMAGES" => {
            let containers = spec["containers"].as_array().into_iter().flatten();
            containers.map(|container| text(&container["image"])).collect::<Vec<_>>().join(",")
        }
        "TYPE" => spec["type"].as_str().unwrap_or("ClusterIP").to_owned(),
        "CLUSTER-IP" => text(&spec["clusterIP"]),
        "PORTS" => {
            let ports = spec["ports"].as_array().into_iter().flatten();
            let port =
                |one: &Value| format!("{}/{}", text(&one["port"]), one["protocol"].as_str().unwrap_or("TCP"));
            ports.map(port).collect::<Vec<_>>().join(",")
        }
        "SELECTOR" => pairs(&spec["selector"]),
        "LABELS" => pairs(&object["metadata"]["labels"]),
        "DATA" => object["data"].as_object().map_or(0, serde_json::Map::len).to_string(),
        "HOSTS" => list(&spec["hosts"]),
        "HOST" => text(&spec["host"]),
        _ => String::new(),
    }
}

/// The pods of a mesh.
pub(crate) fn pods(pods: &[PodStatus]) -> String {
    let mut table = table(&["NAMESPACE", "POD", "READY", "STATUS", "RESTARTS", "ADDRESS", "SIDECAR"]);
    for pod in pods {
        table.add_row([
            pod.namespace.clone(),
            pod.name.clone(),
            format!("{}/{}", pod.ready.0, pod.ready.1),
            pod.status.clone(),
            pod.restarts.to_string(),
            pod.address.map(|address| address.to_string()).unwrap_or_default(),
            pod.synced.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    show(&table)
}

/// How this program was called, for commands that are to be copied.
fn itself() -> String {
    let called = std::env::args_os().next().map(|name| name.to_string_lossy().into_owned());
    called.filter(|name| name.contains('/')).unwrap_or_else(|| "sailctl".into())
}

/// The end of `up`, `apply --wait` and `status`: the table, where to look, what to try.
pub(crate) fn summary(status: &Status) -> String {
    let gateway = format!("http://127.0.0.1:{}", status.ingress.http);
    let mut out = pods(&status.pods);
    let has = |name: &str| status.pods.iter().any(|pod| pod.name.starts_with(name));
    out.push('\n');
    let mut local = format!("{} local", itself());
    if status.name != "default" {
        local.push_str(&format!(" --name {}", status.name));
    }
    let commands = if has("productpage") {
        out.push_str(&format!("Product page:  {gateway}/productpage\n\n"));
        [
            "apply -f examples/bookinfo/networking/destination-rule-all.yaml \
             -f examples/bookinfo/networking/virtual-service-reviews-v3.yaml",
            "logs deploy/productpage-v1 -c istio-proxy -f",
            "down",
        ]
    } else {
        out.push_str(&format!("Gateway:  {gateway}  https://127.0.0.1:{}\n\n", status.ingress.https));
        [
            "label namespace default istio-injection=enabled",
            "apply --wait -f examples/bookinfo/platform/bookinfo.yaml \
             -f examples/bookinfo/networking/bookinfo-gateway.yaml",
            "down",
        ]
    };
    out.push_str("Try:\n");
    for command in commands {
        out.push_str(&format!("  {local} {command}\n"));
    }
    out
}
