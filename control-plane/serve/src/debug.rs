//! Debug pages: what is connected, what it was sent, how that fared. They are read over HTTP (`/debug/<name>`) and over
//! xDS (type `istio.io/debug`, resource `<name>?<query>`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use xds_api::codec::Codec;
use xds_api::envoy::service::status::v3::client_config::GenericXdsConfig;
use xds_api::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use xds_api::google::protobuf;
use xds_api::type_url;
use xds_stream::resource::Resource;
use xds_stream::session::Demand;
use xds_stream::watch::Watch;

use crate::connection::Connection;
use crate::host::Identity;
use crate::http::{self, Request, Response};
use crate::server::{Ads, Shared};

mod dump;

/// What a page is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Parameters.
    pub query: BTreeMap<String, String>,
}

impl Question {
    /// The proxy that the question is about, if one is named.
    pub fn proxy(&self) -> Option<&str> {
        let id = self.query.get("proxyID").or_else(|| self.query.get("proxyId"))?;
        (!id.is_empty()).then_some(id.as_str())
    }
}

type Render = Arc<dyn Fn(&Question) -> Response + Send + Sync>;

/// One page.
#[derive(Clone)]
pub struct Page {
    /// The path below `/debug/`.
    pub name: &'static str,
    /// What it shows.
    pub help: &'static str,
    render: Render,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({})", self.name)
    }
}

impl Page {
    /// A page that a function renders.
    pub fn new(
        name: &'static str,
        help: &'static str,
        render: impl Fn(&Question) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self { name, help, render: Arc::new(render) }
    }

    /// Renders it.
    pub fn render(&self, question: &Question) -> Response {
        (self.render)(question)
    }
}

/// The server's own pages.
pub fn pages(ads: &Ads) -> Vec<Page> {
    let shared = ads.downgrade();
    let page = |name, help, render: fn(&Arc<Shared>, &Question) -> Response| {
        let shared = Weak::clone(&shared);
        Page::new(name, help, move |question| match shared.upgrade() {
            Some(shared) => render(&shared, question),
            None => Response::of(::http::StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        })
    };
    vec![
        page("adsz", "Connected proxies and what they watch; ?push=true pushes everything.", adsz),
        page("connections", "Connected proxies.", connections),
        page("syncz", "Whether each proxy has accepted what it was sent.", syncz),
        page("push_status", "Pushes and refusals so far.", push_status),
        page("config_dump", "What a proxy is to run; ?proxyID=POD.NAMESPACE.", |shared, question| {
            of_proxy(shared, question, dump::config)
        }),
        page("edsz", "Endpoints of a proxy; ?proxyID=POD.NAMESPACE.", |shared, question| {
            of_proxy(shared, question, dump::endpoints)
        }),
        page("ndsz", "The name table of a proxy; ?proxyID=POD.NAMESPACE.", |shared, question| {
            of_proxy(shared, question, dump::names)
        }),
    ]
}

/// Pages that callers outside the system namespace may see, of proxies in their own.
const OPEN_PAGES: [&str; 3] = ["config_dump", "ndsz", "edsz"];

/// Whether a caller may see a page. `None` as the caller stands for one that need not show who it is.
pub fn allowed(caller: Option<&Identity>, system_namespace: &str, page: &str, question: &Question) -> bool {
    let Some(caller) = caller else { return true };
    if caller.namespace == system_namespace {
        return true;
    }
    let namespace = question.proxy().and_then(|proxy| proxy.rsplit_once('.')).map(|(_, namespace)| namespace);
    OPEN_PAGES.contains(&page) && namespace == Some(caller.namespace.as_str())
}

/// Answers `/debug/...` over HTTP; access has been checked.
pub fn answer(pages: &[Page], request: &Request) -> Response {
    let name = request.path.strip_prefix("/debug").unwrap_or_default().trim_matches('/');
    let question = Question { query: request.query.clone() };
    find(pages, name, &question)
}

fn find(pages: &[Page], name: &str, question: &Question) -> Response {
    if name.is_empty() || name == "list" {
        let list: BTreeMap<&str, &str> = pages.iter().map(|page| (page.name, page.help)).collect();
        return Response::json(&json!(list));
    }
    match pages.iter().find(|page| page.name == name) {
        Some(page) => page.render(question),
        None => {
            Response::not_found(format!("there is no page {name}; /debug/list names those that there are\n"))
        }
    }
}

/// Answers a request for debug resources over xDS.
pub(crate) fn resources(
    shared: &Arc<Shared>,
    connection: &Connection,
    type_url: &str,
    demand: &Demand,
) -> Vec<Resource> {
    let below = type_url.strip_prefix(type_url::DEBUG_PREFIX).unwrap_or_default().trim_matches('/');
    let names: Vec<String> = match demand {
        Demand::Names(names) if below.is_empty() => names.iter().cloned().collect(),
        Demand::Names(_) | Demand::Everything => vec![below.to_owned()],
    };
    names.iter().flat_map(|name| resource(shared, connection, name)).collect()
}

fn resource(shared: &Arc<Shared>, connection: &Connection, name: &str) -> Vec<Resource> {
    let (page, query) = name.split_once('?').unwrap_or((name, ""));
    let question = Question { query: http::parse_query(query) };
    let system = &shared.options.system_namespace;
    if !allowed(connection.identity.as_ref(), system, page, &question) {
        return vec![raw(name, "this page is open to the system namespace only")];
    }
    if page == "syncz" {
        return shared.sorted().iter().map(|connection| client_config(connection)).collect();
    }
    let pages = shared.pages.get().map(Vec::as_slice).unwrap_or_default();
    vec![raw(name, &find(pages, page, &question).body)]
}

fn raw(name: &str, body: &(impl AsRef<[u8]> + ?Sized)) -> Resource {
    Resource {
        name: name.into(),
        // Never what the client holds already: every question gets an answer.
        version: jiff::Timestamp::now().to_string().into(),
        type_url: type_url::DEBUG_PREFIX.into(),
        body: Bytes::copy_from_slice(body.as_ref()),
    }
}

/// A proxy's state in the form in which `istioctl proxy-status` asks for it.
fn client_config(connection: &Connection) -> Resource {
    let configs = connection.with_session(|session| {
        let watches = session.watches().filter(|(type_url, _)| !type_url.starts_with(type_url::DEBUG_PREFIX));
        watches.map(|(type_url, watch)| generic(type_url, watch)).collect()
    });
    let config = ClientConfig {
        node: Some(connection.node.clone()),
        generic_xds_configs: configs,
        ..Default::default()
    };
    Resource {
        name: connection.name().into(),
        version: jiff::Timestamp::now().to_string().into(),
        type_url: "type.googleapis.com/envoy.service.status.v3.ClientConfig".into(),
        body: config.encode_to_vec().into(),
    }
}

fn generic(type_url: &str, watch: &Watch) -> GenericXdsConfig {
    let status = match sync_word(watch) {
        "SYNCED" => ConfigStatus::Synced,
        "NOT SENT" => ConfigStatus::NotSent,
        "ERROR" => ConfigStatus::Error,
        _ => ConfigStatus::Stale,
    };
    GenericXdsConfig {
        type_url: type_url.to_owned(),
        config_status: status.into(),
        version_info: watch.status().sent.as_ref().map(|stamp| stamp.version.clone()).unwrap_or_default(),
        ..Default::default()
    }
}

fn sync_word(watch: &Watch) -> &'static str {
    let status = watch.status();
    match (&status.sent, &status.acked, &status.nacked) {
        (None, _, _) => "NOT SENT",
        (Some(_), _, Some(_)) => "ERROR",
        (Some(sent), Some(acked), None) if sent == acked => "SYNCED",
        _ => "STALE",
    }
}

fn connections(shared: &Arc<Shared>, _: &Question) -> Response {
    let clients: Vec<Value> = shared.sorted().iter().map(|connection| head(connection)).collect();
    Response::json(&json!({"totalClients": clients.len(), "clients": clients}))
}

fn head(connection: &Connection) -> Value {
    json!({
        "connectionId": connection.name(),
        "connectedAt": connection.connected.to_string(),
        "address": connection.peer,
        "identity": connection.identity.as_ref().map(ToString::to_string),
        "proxy": connection.proxy(),
        "nodeId": connection.node.id,
        "version": connection.metadata("ISTIO_VERSION"),
        "clusterId": connection.metadata("CLUSTER_ID"),
    })
}

fn adsz(shared: &Arc<Shared>, question: &Question) -> Response {
    if question.query.get("push").is_some_and(|push| push == "true") {
        shared.push_all();
        return Response::text(format!("pushed to {} proxies\n", shared.connections.len()));
    }
    let clients = shared.sorted();
    let clients: Vec<Value> = clients
        .iter()
        .map(|connection| {
            let mut entry = head(connection);
            let watches: BTreeMap<String, Value> = connection.with_session(|session| {
                entry["protocol"] = json!(format!("{:?}", session.protocol()).to_uppercase());
                session.watches().map(|(type_url, watch)| (type_url.to_owned(), watched(watch))).collect()
            });
            entry["waitingForPushSeconds"] = json!(connection.waiting().map(|time| time.as_secs_f64()));
            entry["watches"] = json!(watches);
            entry
        })
        .collect();
    Response::json(&json!({"totalClients": clients.len(), "clients": clients}))
}

fn watched(watch: &Watch) -> Value {
    let status = watch.status();
    json!({
        "wildcard": watch.is_wildcard(),
        "names": watch.names(),
        "holds": watch.held().count(),
        "sync": sync_word(watch),
        "sent": status.sent.as_ref().map(|stamp| &stamp.nonce),
        "acked": status.acked.as_ref().map(|stamp| &stamp.nonce),
        "error": status.nacked.as_ref().map(|nack| &nack.message),
    })
}

fn syncz(shared: &Arc<Shared>, _: &Question) -> Response {
    let kinds = [
        ("cluster", type_url::CLUSTER),
        ("listener", type_url::LISTENER),
        ("route", type_url::ROUTE),
        ("endpoint", type_url::ENDPOINT),
        ("extensionconfig", type_url::EXTENSION_CONFIG),
    ];
    let clients = shared.sorted();
    let list: Vec<Value> = clients
        .iter()
        .map(|connection| {
            let mut entry = json!({
                "cluster_id": connection.metadata("CLUSTER_ID"),
                "proxy": connection.proxy(),
                "istio_version": connection.metadata("ISTIO_VERSION"),
            });
            connection.with_session(|session| {
                for (kind, type_url) in kinds {
                    let Some(watch) = session.watch(type_url) else { continue };
                    let status = watch.status();
                    entry[format!("{kind}_sent")] = json!(status.sent.as_ref().map(|stamp| &stamp.nonce));
                    entry[format!("{kind}_acked")] = json!(status.acked.as_ref().map(|stamp| &stamp.nonce));
                    entry[format!("{kind}_sync")] = json!(sync_word(watch));
                    if let Some(nack) = &status.nacked {
                        entry[format!("{kind}_error")] = json!(nack.message);
                    }
                }
            });
            entry
        })
        .collect();
    Response::json(&json!(list))
}

fn push_status(shared: &Arc<Shared>, _: &Question) -> Response {
    let metrics = &shared.metrics;
    let kinds = ["cds", "eds", "lds", "rds", "sds", "nds", "ecds"];
    let by_kind: BTreeMap<&str, Value> = kinds
        .iter()
        .map(|kind| {
            (*kind, json!({"pushes": metrics.pushes.get(kind), "rejects": metrics.rejects.get(kind)}))
        })
        .collect();
    Response::json(&json!({"connected": metrics.connections.get(), "types": by_kind}))
}

fn of_proxy(shared: &Arc<Shared>, question: &Question, render: fn(&Connection, &Codec) -> Value) -> Response {
    let Some(proxy) = question.proxy() else {
        return Response::bad_request("say which proxy: ?proxyID=POD.NAMESPACE\n");
    };
    let Some(connection) = shared.find(proxy) else {
        return Response::not_found(format!("{proxy} is not connected here\n"));
    };
    // The codec's descriptors are large and wanted seldom: made for the question and dropped after.
    Response::json(&render(&connection, &Codec::new()))
}

/// A resource as JSON.
fn decode(codec: &Codec, resource: &Resource) -> Value {
    let any = protobuf::Any { type_url: resource.type_url.to_string(), value: resource.body.to_vec() };
    codec.any_to_json(&any).unwrap_or_else(|error| {
        json!({"@type": resource.type_url.as_ref(), "name": resource.name.as_ref(), "error": error.to_string()})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_open_to_whom_they_concern() {
        let check = |namespace: &str, page: &str, proxy: &str| {
            let caller = Identity { namespace: namespace.into(), service_account: "x".into() };
            let question = Question { query: BTreeMap::from([("proxyID".to_owned(), proxy.to_owned())]) };
            allowed(Some(&caller), "istio-system", page, &question)
        };
        assert!(check("istio-system", "adsz", ""));
        assert!(!check("default", "adsz", ""));
        assert!(check("default", "config_dump", "reviews-1.default"));
        assert!(!check("default", "config_dump", "reviews-1.other"));
        assert!(!check("default", "registryz", "reviews-1.default"));
        assert!(allowed(None, "istio-system", "adsz", &Question::default()));
    }
}
