//! Wiring: everything is made here, once, and nothing starts before every port is had.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base::drain;
use base::task::Supervised;
use identity::TrustDomain;
use identity::tls::{ClientAuth, PeerPolicy, ServerSide};
use jiff::Timestamp;
use mesh_api::ObjectMeta;
use mesh_api::request_authentication::JwtRule;
use saild_ca::authenticate::client_certificate::ClientCertificate;
use saild_ca::authenticate::jwt::{AUDIENCE, Jwt};
use saild_ca::authenticate::{Authenticator, Authenticators};
use saild_ca::service::{CertificateService, Counters};
use saild_ca::serving::{Serving, istiod_names};
use saild_ca::{Ca, Options};
use saild_model::mesh::JwksSource;
use saild_model::{ChangeSet, ConfigKey, Mesh};
use saild_registry::{Registry, Updates};
use saild_serve::debug::{self, Page, Question};
use saild_serve::http::{Response, Router};
use saild_serve::metrics::Metrics;
use saild_serve::transport::{Incoming, listen};
use saild_serve::{Ads, Identity, Pusher};
use tokio::net::TcpListener;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::host::{State, Translation};
use crate::jwks::{Fetcher, Resolver};
use crate::measure::Measured;
use crate::settings::{Settings, Tokens, VERSION};
use crate::source::{self, Started};
use crate::waiting::Waiting;
use crate::webhook::inject::Injection;
use crate::{caller, pages, upkeep, webhook};

/// Streams of one connection: a relay may carry a whole node's proxies.
const MAX_STREAMS: u32 = 100_000;
/// How long the first snapshot waits for issuers' keys: a restart shall not refuse tokens that were good before.
const KEYS_PATIENCE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where saild listens.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) secure_grpc: SocketAddr,
    pub(crate) monitoring: SocketAddr,
}

/// A running saild.
pub(crate) struct Running {
    drain: drain::Signal,
    _tasks: Vec<Supervised<()>>,
}

impl Running {
    /// Ends streams and requests, within a time.
    pub(crate) async fn shutdown(self, time: Duration) {
        if tokio::time::timeout(time, self.drain.drain()).await.is_err() {
            warn!("some requests did not end within {time:?}");
        }
    }
}

struct Sockets {
    http: TcpListener,
    https: TcpListener,
    grpc: TcpListener,
    secure_grpc: TcpListener,
    monitoring: TcpListener,
}

impl Sockets {
    async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let addresses = &settings.listen;
        Ok(Self {
            http: listen("--httpAddr", addresses.http).await?,
            https: listen("--httpsAddr", addresses.https).await?,
            grpc: listen("--grpcAddr", addresses.grpc).await?,
            secure_grpc: listen("--secureGRPCAddr", addresses.secure_grpc).await?,
            monitoring: listen("--monitoringAddr", addresses.monitoring).await?,
        })
    }

    fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr()?,
            https: self.https.local_addr()?,
            grpc: self.grpc.local_addr()?,
            secure_grpc: self.secure_grpc.local_addr()?,
            monitoring: self.monitoring.local_addr()?,
        })
    }
}

/// Starts saild.
pub(crate) async fn build(settings: Settings, log: base::log::Handle) -> anyhow::Result<Running> {
    let started = Instant::now();
    let sockets = Sockets::bind(&settings).await?;
    let addresses = sockets.addresses()?;
    let (drain, watch) = drain::channel();

    let waiting = Waiting::start(
        [&sockets.http, &sockets.grpc, &sockets.monitoring],
        [&sockets.https, &sockets.secure_grpc],
    )?;
    info!(grpc = %addresses.grpc, http = %addresses.http, "saild listens; the registry's objects are read");
    let Started { registry, updates, mesh, files, tokens } = source::start(&settings).await?;
    let mut keys = keys(&settings);
    keys.want(&mesh);
    keys.settled(KEYS_PATIENCE).await;
    let state = Arc::new(State::new(Arc::new(mesh.with_jwks(keys.keys()))));

    let trust = trust_domains(&state)?;
    let ca = Arc::new(open_ca(&settings, &trust)?);
    let authenticators = authenticators(&settings, trust, tokens);
    let names = istiod_names(&settings.system_namespace, &settings.domain, &settings.revision);
    let serving = Arc::new(Serving::new(&ca, names, Timestamp::now())?);

    let metrics = Arc::new(Metrics::default());
    let host = Translation {
        state: Arc::clone(&state),
        authenticators: authenticators.clone(),
        check_identity: settings.check_identity,
    };
    let (ads, pusher) = Ads::new(Arc::new(host), ads_options(&settings), Arc::clone(&metrics), watch.clone());
    let counters = Arc::new(Counters::default());
    let certificates =
        CertificateService::new(Arc::clone(&ca), authenticators.clone(), Arc::clone(&counters));
    let webhooks = Arc::new(webhook::Counters::default());
    let injection = Arc::new(Injection {
        state: Arc::clone(&state),
        revision: settings.revision.clone(),
        system_namespace: settings.system_namespace.clone(),
    });
    let pages = {
        let (injection, registry) = (Arc::clone(&injection), Arc::clone(&registry));
        let mut all = debug::pages(&ads);
        all.extend(pages::pages(&state, files, move || injection.shown(&registry.store())));
        all
    };
    ads.set_pages(pages.clone());
    let measured = Measured {
        ads: metrics,
        authority: counters,
        webhooks: Arc::clone(&webhooks),
        ca: Arc::clone(&ca),
        state: Arc::clone(&state),
        started,
    };
    let access = Access {
        authenticators,
        system_namespace: settings.system_namespace.clone(),
        check: settings.check_debug_access,
    };
    let info = info_router(pages, access, measured, log);
    let hooks = webhook_router(injection, Arc::clone(&registry), webhooks);

    let tls = |client_auth, alpn: &[&[u8]]| {
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        ServerSide { svid: serving.svid(), client_auth, alpn }.config().map(Arc::new)
    };
    let secure = tls(ClientAuth::Optional(ca.roots(), PeerPolicy::any()), &[b"h2"])?;
    let https = tls(ClientAuth::None, &[b"h2", b"http/1.1"])?;

    drop(waiting);
    let grpc = |incoming| {
        let services = (ads.clone(), certificates.clone());
        Supervised::spawn(serve_grpc(incoming, services, watch.clone()))
    };
    let http =
        |incoming, router| Supervised::spawn(saild_serve::http::serve(incoming, router, watch.clone()));
    let tasks = vec![
        grpc(Incoming::new(sockets.grpc, None)),
        grpc(Incoming::new(sockets.secure_grpc, Some(secure))),
        http(Incoming::new(sockets.http, None), info.clone()),
        http(Incoming::new(sockets.monitoring, None), info),
        http(Incoming::new(sockets.https, Some(https)), hooks),
        Supervised::spawn(follow(Followed { updates, keys, mesh }, state, pusher)),
        Supervised::spawn(upkeep::run(ca, serving)),
    ];
    tell(&settings, &addresses)?;
    Ok(Running { drain, _tasks: tasks })
}

/// Says where saild listens: in the log, and in a file for those who let the kernel choose the ports.
fn tell(settings: &Settings, addresses: &Addresses) -> anyhow::Result<()> {
    let path = settings.state_dir.join("addresses.json");
    let beside = settings.state_dir.join("addresses.json.new");
    std::fs::write(&beside, serde_json::to_vec_pretty(addresses)?)
        .and_then(|()| std::fs::rename(&beside, &path))
        .with_context(|| format!("writing {}", path.display()))?;
    info!(
        grpc = %addresses.grpc,
        secure_grpc = %addresses.secure_grpc,
        https = %addresses.https,
        http = %addresses.http,
        monitoring = %addresses.monitoring,
        "saild {VERSION} serves"
    );
    Ok(())
}

fn ads_options(settings: &Settings) -> saild_serve::Options {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = saild_serve::Options::for_cores(cores);
    options.delays = settings.delays;
    options.max_stream_age = settings.max_stream_age;
    options.system_namespace.clone_from(&settings.system_namespace);
    if let Some(count) = settings.concurrent_pushes {
        options.concurrent_pushes = count;
    }
    if let Some(count) = settings.streams_per_second {
        options.streams_per_second = count as f64;
    }
    let identifier = serde_json::json!({"Component": "istiod", "Info": {"version": VERSION}});
    options.control_plane.identifier = identifier.to_string();
    options
}

fn trust_domains(state: &State) -> anyhow::Result<Vec<TrustDomain>> {
    let mesh = Arc::clone(&state.snapshot().mesh);
    let domains = mesh.settings().trust_domains().map(TrustDomain::new).collect::<Result<Vec<_>, _>>();
    domains.context("MeshConfig trustDomain")
}

fn open_ca(settings: &Settings, trust: &[TrustDomain]) -> anyhow::Result<Ca> {
    let options = Options {
        cacerts: settings.cacerts.clone(),
        state_dir: settings.state_dir.clone(),
        trust_domain: trust.first().cloned().unwrap_or_default(),
        root_key: settings.root_key,
        root_life: settings.root_life,
        lifetimes: settings.lifetimes,
    };
    let ca = Ca::open(options, Timestamp::now()).context("the certificate authority (see --state-dir)")?;
    info!(source = ?ca.source(), until = %ca.authority().info().not_after, "certificate authority");
    Ok(ca)
}

/// Certificates first, as they are checked here; then tokens by the keys that were given, or by Kubernetes.
fn authenticators(
    settings: &Settings,
    trust: Vec<TrustDomain>,
    kubernetes: Option<Arc<dyn Authenticator>>,
) -> Authenticators {
    let mut list: Vec<Arc<dyn Authenticator>> = vec![Arc::new(ClientCertificate::new(trust))];
    if let Some(Tokens { keys, issuer }) = &settings.tokens {
        list.push(Arc::new(Jwt::new(keys.clone(), issuer.clone(), vec![AUDIENCE.to_owned()])));
    } else if let Some(kubernetes) = kubernetes {
        list.push(kubernetes);
    } else {
        warn!(
            "without --token-jwks no token is taken: only callers with a certificate of the mesh are served"
        );
    }
    Authenticators::new(list)
}

fn keys(settings: &Settings) -> Resolver {
    let fetcher = Fetcher::new(settings.jwks_blocked.clone());
    Resolver::start(fetcher, settings.jwks_timing, settings.state_dir.join("jwks.json"))
}

/// What snapshots are made of.
struct Followed {
    updates: Updates,
    keys: Resolver,
    mesh: Arc<Mesh>,
}

/// Serves each snapshot as it comes, and has the difference pushed.
async fn follow(mut from: Followed, state: Arc<State>, pusher: Pusher) {
    loop {
        let changes = tokio::select! {
            update = from.updates.next() => {
                from.mesh = update.mesh;
                from.keys.want(&from.mesh);
                update.changes
            }
            () = from.keys.changed() => readers_of_keys(&from.mesh),
        };
        state.replace(Arc::new(from.mesh.with_jwks(from.keys.keys())));
        pusher.changed(changes).await;
    }
}

/// The policies whose keys are fetched.
fn readers_of_keys(mesh: &Mesh) -> ChangeSet {
    let fetched = |rules: &[JwtRule]| rules.iter().any(|rule| JwksSource::of(rule).is_some());
    let policies = mesh.config().request_authentications.all().iter();
    let readers = policies.filter(|policy| fetched(&policy.spec.jwt_rules));
    let key = |meta: &ObjectMeta| ConfigKey::new("RequestAuthentication", &meta.namespace, &meta.name);
    ChangeSet { configs: readers.map(|policy| key(&policy.meta)).collect(), ..ChangeSet::default() }
}

async fn serve_grpc(incoming: Incoming, services: (Ads, CertificateService), watch: drain::Watch) {
    let (ads, certificates) = services;
    let mut signal = watch.clone();
    let served = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(InterceptorLayer::new(caller::attach))
        .add_service(ads)
        .add_service(certificates.into_server())
        .serve_with_incoming_shutdown(incoming, async move { signal.signaled().await })
        .await;
    if let Err(error) = served {
        warn!("gRPC serving ended: {error}");
    }
    drop(watch);
}

/// Who may see debug pages.
#[derive(Clone, Debug)]
struct Access {
    authenticators: Authenticators,
    system_namespace: String,
    check: bool,
}

impl Access {
    async fn refuse(&self, page: &str, request: &saild_serve::http::Request) -> Option<Response> {
        if !self.check || request.peer.is_local() {
            return None;
        }
        let caller = match self.authenticators.authenticate(&caller::of_http(request)).await {
            Ok(caller) => Identity { namespace: caller.namespace, service_account: caller.service_account },
            Err(refusal) => {
                return Some(Response::of(http::StatusCode::UNAUTHORIZED, format!("{refusal}\n")));
            }
        };
        let question = Question { query: request.query.clone() };
        let allowed = debug::allowed(Some(&caller), &self.system_namespace, page, &question);
        (!allowed)
            .then(|| Response::of(http::StatusCode::FORBIDDEN, format!("{caller} may not see this page\n")))
    }
}

fn info_router(pages: Vec<Page>, access: Access, measured: Measured, log: base::log::Handle) -> Router {
    let measured = Arc::new(measured);
    let pages: Arc<[Page]> = pages.into();
    Router::new()
        .route("/ready", |_| async { Response::text("") })
        .route("/version", |_| async { Response::json(&serde_json::json!({"version": VERSION})) })
        .route("/metrics", move |_| {
            let measured = Arc::clone(&measured);
            async move { Response::text(measured.page()) }
        })
        .route("/debug/", move |request| {
            let (pages, access) = (Arc::clone(&pages), access.clone());
            async move {
                let page = request.path.trim_start_matches("/debug").trim_matches('/').to_owned();
                match access.refuse(&page, &request).await {
                    Some(refusal) => refusal,
                    None => debug::answer(&pages, &request),
                }
            }
        })
        .route("/logging", move |request| {
            let log = log.clone();
            async move {
                if !request.peer.is_local() {
                    return Response::of(http::StatusCode::FORBIDDEN, "from this machine only\n");
                }
                match request.query.get("filter").map(|filter| log.set_filter(filter)) {
                    Some(Err(error)) => Response::bad_request(format!("{error}\n")),
                    Some(Ok(())) | None => Response::text(format!("{}\n", log.filter())),
                }
            }
        })
}

fn webhook_router(
    injection: Arc<Injection>,
    registry: Arc<Registry>,
    counters: Arc<webhook::Counters>,
) -> Router {
    let validating = Arc::clone(&counters);
    let inject = move |request: saild_serve::http::Request| {
        let (injection, registry, counters) =
            (Arc::clone(&injection), Arc::clone(&registry), Arc::clone(&counters));
        async move { injection.answer(&request, &registry.store(), &counters) }
    };
    let validate = move |request: saild_serve::http::Request| {
        let counters = Arc::clone(&validating);
        async move { webhook::validate::answer(&request, &counters) }
    };
    Router::new()
        .route("/inject", inject.clone())
        .route("/inject/", inject)
        .route("/validate", validate.clone())
        .route("/validate/", validate)
        .route("/httpsReady", |_| async { Response::text("") })
}
