//! One try: a host, a connection, the request out, the response's head in.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response};
use sail_proxy_decide::host::Host;
use sail_proxy_decide::lb::{Criteria, MetadataPath, Override};
use sail_proxy_decide::route::hash::{HashContext, Hashed};
use sail_proxy_decide::route::retry::{HostPredicate, RetryPolicy};
use sail_proxy_decide::route::{HostRewrite, RouteAction};

use super::Found;
use super::counters::Counters;
use super::failure::Failure;
use super::filtered::Filtered;
use super::request::Success;
use crate::clock;
use crate::cluster::{Avoid, Choice, Cluster, LbContext};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::head::{Head, Keep, headers_size, may_have_body};
use crate::http::{inform, mutate};
use crate::pool::Pool;
use crate::pool::lease::{Hold, Lease, SendError, Sending};
use crate::pool::limits::Resource;
use crate::stats::sets::{cluster as stats, virtual_host};
use crate::stream_info::{Protocol, UpstreamInfo};

/// So many connections may turn out to have ended before a request gets none.
const STALE_CONNECTIONS: u32 = 5;

/// What a try needs to know.
pub(super) struct Try<'a> {
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) cluster: &'a Rc<Cluster>,
    pub(super) action: &'a RouteAction,
    pub(super) found: &'a Found,
    pub(super) policy: Option<&'a RetryPolicy>,
    pub(super) hash: Option<u64>,
    /// Hosts that were tried, this one to be added.
    pub(super) tried: &'a RefCell<Vec<Arc<Host>>>,
    pub(super) keep: Keep,
    /// How long the upstream may be silent.
    pub(super) idle: Option<std::time::Duration>,
    pub(super) counters: &'a Counters,
}

/// What a connection is to send.
enum Message {
    New(Body),
    /// What another connection took back, since it had ended.
    Unsent(Box<Request<Body>>),
}

/// The request's hash, where the route has hash policies.
pub(super) fn hash(exchange: &Exchange, action: &RouteAction, head: &Head) -> Hashed {
    if action.hash_policy.is_empty() {
        return Hashed::default();
    }
    let info = exchange.info.borrow();
    let context = HashContext {
        source_ip: Some(info.downstream.remote_address.ip()),
        random: exchange.connection.worker.random(),
        filter_state: &info.filter_state,
    };
    sail_proxy_decide::route::hash::hash(&action.hash_policy, &head.view(), &context)
}

/// Writes logs of the try that begins while it goes on, as often as the configuration says.
pub(super) fn log_periodically(exchange: &Rc<Exchange>) {
    let Some(interval) = exchange.connection.manager.observer.try_interval() else { return };
    exchange.between_tries.set(false);
    let count = exchange.info.borrow().attempt_count;
    let exchange = Rc::downgrade(exchange);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(exchange) = exchange.upgrade() else { return };
            let mut info = exchange.info.borrow_mut();
            // Another try has a task of its own.
            if info.timing.end.is_some() || info.attempt_count != count || exchange.between_tries.get() {
                return;
            }
            exchange.connection.manager.observer.on_try_interval(&mut info);
        }
    });
}

/// A request on its way, up to its response's head; what the upstream says before that is noted.
struct Informing<'a> {
    exchange: &'a Exchange,
    cluster: &'a Cluster,
    counters: &'a Counters,
    sending: Sending<'a>,
}

impl Future for Informing<'_> {
    type Output = Result<Response<Body>, SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.sending).poll(context);
        if let Some(mut response) = this.sending.take_informational() {
            if !this.cluster.config.http.http1.header_case.keeps_reason() {
                response.extensions_mut().remove::<hyper::ext::ReasonPhrase>();
            }
            this.cluster.count_answer(response.status().as_u16(), this.exchange);
            this.counters.counted(response.status().as_u16());
            this.exchange.informed.set(true);
            inform::pass_on(this.exchange, *response);
        }
        sent
    }
}

impl Try<'_> {
    pub(super) async fn run(&self, head: &mut Head, body: Body) -> Result<Success, Failure> {
        let choice = self.choose(head).ok_or(Failure::NoHealthyHost)?;
        // A member of an aggregate answers for itself.
        let cluster = choice.member.as_ref().unwrap_or(self.cluster);
        let stats = cluster.stats();
        let host = choice.host.clone();
        self.tried.borrow_mut().push(host.clone());
        self.note_host(&host);
        if let Some(key) = cluster.config.lb.selected_host_key() {
            self.note_selected(key, &host);
        }
        let pool =
            cluster.pool(&choice, self.exchange, self.action.priority).ok_or(Failure::NoHealthyHost)?;
        let filtered = Filtered::of(self, cluster);
        let mut body = body;
        if let Some(filtered) = &filtered {
            // Boxed, since it is rare.
            Box::pin(filtered.request(head, &mut body)).await?;
        }
        let mut hold = None;
        let mut lease = self.lease(cluster, &pool, &host, &mut hold).await?;
        let mut message = Message::New(body);
        let mut stale = 0;
        loop {
            let sending = self.begin(cluster, &host, &mut lease, head, message)?;
            let sending = Informing { exchange: self.exchange, cluster, counters: self.counters, sending };
            let sent = match self.idle {
                None => sending.await,
                Some(limit) => match tokio::time::timeout(limit, sending).await {
                    Ok(sent) => sent,
                    Err(_) => {
                        let failure = Failure::PerTryIdleTimeout;
                        stats.inc(stats::upstream_rq_per_try_idle_timeout);
                        self.cluster.note_failure(&host, &failure);
                        return Err(failure);
                    }
                },
            };
            let SendError { unsent, error } = match sent {
                Ok(response) => {
                    let (response, lease) = match &filtered {
                        Some(filtered) => Box::pin(filtered.response(response, lease)).await?,
                        None => (response, lease),
                    };
                    return Ok(Success { response, lease, host, member: choice.member.clone() });
                }
                Err(error) => error,
            };
            match unsent {
                // The connection had ended while it was idle, and nothing was sent: that is no try.
                Some(unsent) if stale < STALE_CONNECTIONS => {
                    stale += 1;
                    hold = lease.take_hold();
                    message = Message::Unsent(unsent);
                    let http2 = lease.is_http2();
                    lease = self.lease(cluster, &pool, &host, &mut hold).await?;
                    if lease.is_http2() != http2 {
                        return Err(Failure::Terminated { started: false });
                    }
                }
                unsent => {
                    let failure = Failure::of_codec(&error, unsent.is_some());
                    if failure == Failure::Reset {
                        stats.inc(stats::upstream_rq_rx_reset);
                    }
                    cluster.note_failure(&host, &failure);
                    return Err(failure);
                }
            }
        }
    }

    /// Begins to send. Not a part of the async function, in whose future the request would stand once more.
    fn begin<'l>(
        &self,
        cluster: &Cluster,
        host: &Host,
        lease: &'l mut Lease,
        head: &mut Head,
        message: Message,
    ) -> Result<Sending<'l>, Failure> {
        let request = match message {
            Message::Unsent(request) => *request,
            Message::New(body) => {
                let request = self.request(head, lease, host, body)?;
                self.note_connection(lease, &request);
                cluster.stats().inc(stats::upstream_rq_total);
                self.counters.inc(virtual_host::upstream_rq_total);
                request
            }
        };
        Ok(lease.send(request))
    }

    /// A connection to the host, and the request's place under the cluster's limits.
    async fn lease(
        &self,
        cluster: &Cluster,
        pool: &Rc<Pool>,
        host: &Host,
        hold: &mut Option<Hold>,
    ) -> Result<Lease, Failure> {
        let mut lease = match pool.try_acquire() {
            Some(lease) => lease,
            None => pool.acquire().await.map_err(|error| {
                let failure = Failure::from(error);
                cluster.note_failure(host, &failure);
                failure
            })?,
        };
        if hold.is_none() {
            // As Envoy counts: a request that waits is pending, and active when it has a connection.
            let Some(permit) = cluster.limits(self.action.priority).acquire(Resource::Requests) else {
                cluster.stats().inc(stats::upstream_rq_pending_overflow);
                return Err(Failure::Overflow);
            };
            *hold = Some(Hold::new(cluster.stats(), host, permit));
        }
        if let Some(hold) = hold.take() {
            lease.hold(hold);
        }
        Ok(lease)
    }

    /// A host that the retry policy does not rule out, or the last one looked at.
    pub(super) fn choose(&self, head: &Head) -> Option<Choice> {
        let tried = &*self.tried.borrow();
        let predicates = self.policy.map_or(&[][..], |policy| &policy.host_predicates);
        let omits_tried = predicates.contains(&HostPredicate::PreviousHosts);
        let avoided = |host: &Host| {
            (omits_tried && tried.iter().any(|tried| std::ptr::eq(&**tried, host)))
                || predicates.iter().any(|predicate| predicate.avoids(host))
        };
        let attempts = self.policy.map_or(1, |policy| policy.host_selection_max_attempts).max(1);
        // After every so many tries, the priorities that were tried are left out.
        let frequency = self.policy.and_then(|policy| policy.previous_priorities).unwrap_or(u32::MAX).max(1);
        let counted = tried.len() - tried.len() % usize::try_from(frequency).unwrap_or(usize::MAX);
        let priorities: smallvec::SmallVec<[u32; 4]> =
            tried.iter().take(counted).map(|host| host.priority).collect();
        let wishes = self.exchange.wishes();
        // Retries go anywhere.
        let named = wishes.as_ref().and_then(|wishes| wishes.host.as_ref()).filter(|_| tried.is_empty());
        let authority = wishes.as_ref().and_then(|wishes| wishes.authority.as_deref());
        let metadata = |namespace: &str, path: &[Box<str>]| {
            let info = self.exchange.info.borrow();
            match info.dynamic_metadata.lookup(namespace, path)? {
                serde_json::Value::String(text) => Some(text.clone()),
                _ => None,
            }
        };
        let context = LbContext {
            hash: self.hash,
            original_destination: self.exchange.connection.accepted.original_destination,
            avoid: (!predicates.is_empty() && !tried.is_empty())
                .then_some(Avoid { hosts: &avoided, attempts }),
            avoid_priorities: &priorities,
            criteria: Criteria {
                route: self.action.metadata_match.as_deref(),
                weighted: self
                    .found
                    .weighted
                    .as_ref()
                    .and_then(|weighted| weighted.metadata_match.as_deref()),
            },
            override_host: named.map(|named| Override { address: &named.address, strict: named.strict }),
            headers: Some(&head.headers),
            metadata: Some(&metadata),
            authority: authority.or_else(|| Some(head.authority())),
            tried: tried.len(),
        };
        let choice = self.cluster.choose(&context, &self.exchange.connection.worker);
        if choice.is_none()
            && let Some(named) = named
        {
            named.missing.set(!self.cluster.has_host(&named.address));
        }
        choice
    }

    fn request(
        &self,
        head: &mut Head,
        lease: &Lease,
        host: &Host,
        body: Body,
    ) -> Result<Request<Body>, Failure> {
        if matches!(self.action.host_rewrite, Some(HostRewrite::Auto))
            && let Ok(name) = HeaderValue::from_str(&host.hostname)
            && !name.is_empty()
        {
            mutate::update_authority(self.exchange, self.action, head, name);
        }
        let mut parts = if lease.is_http2() {
            head.http2_parts(self.keep).ok_or(Failure::BadAuthority)?
        } else {
            let mut parts = head.http1_parts(self.keep);
            if self.cluster.config.http.http1.send_fully_qualified_url
                && !head.is_connect()
                && let Some(url) = head.whole_url()
            {
                parts.uri = url;
            }
            if matches!(body, Body::Empty) && may_have_body(&parts.method) && head.protocol.is_none() {
                parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
            }
            parts
        };
        if let Some(spelling) = self.exchange.spelling.get() {
            parts.extensions.insert(spelling.clone());
        }
        if let Some(protocol) = &head.protocol {
            super::upgrade::ask(&mut parts, protocol, lease.is_http2());
        }
        Ok(Request::from_parts(parts, body))
    }

    /// Tells in metadata which host it is.
    fn note_selected(&self, (namespace, path): &MetadataPath, host: &Host) {
        let Some((first, rest)) = path.split_first() else { return };
        let address = serde_json::Value::from(host.address.to_string());
        let value = rest
            .iter()
            .rev()
            .fold(address, |inner, key| serde_json::Map::from_iter([(key.to_string(), inner)]).into());
        let fields = serde_json::Map::from_iter([(first.to_string(), value)]);
        self.exchange.info.borrow_mut().dynamic_metadata.merge(namespace, fields);
    }

    pub(super) fn note_host(&self, host: &Host) {
        let mut info = self.exchange.info.borrow_mut();
        if info.captured.wants_metadata() {
            let metadata = info.config_metadata.get_or_insert_default();
            metadata.cluster.clone_from(&self.cluster.config.metadata);
            metadata.host.clone_from(&host.metadata);
        }
        info.try_upstream(UpstreamInfo {
            host: crate::cluster::upstream_address(&host.address),
            workload: host.metadata("istio", "workload").and_then(serde_json::Value::as_str).map(Into::into),
            hostname: (!host.hostname.is_empty()).then(|| host.hostname.clone()),
            ..UpstreamInfo::default()
        });
    }

    fn note_connection(&self, lease: &Lease, request: &Request<Body>) {
        let http2 = request.version() == http::Version::HTTP_2;
        let mut info = self.exchange.info.borrow_mut();
        let now = clock::now();
        info.timing.pool_ready.get_or_insert(now);
        let facts = lease.connection();
        let upstream = info.upstream_mut();
        upstream.connection_id = Some(facts.id);
        upstream.local_address = facts.local;
        upstream.life = Some(facts.life.clone());
        upstream.tls = facts.tls.as_ref().map(|peer| peer.info.clone());
        upstream.protocol = Some(if http2 { Protocol::Http2 } else { Protocol::Http11 });
        self.exchange.connection.manager.observer.on_upstream_stream(&mut info);
        info.timing.first_upstream_tx = Some(now);
        // As the wire has it, near enough: the line, and four bytes a header besides name and value.
        let line = request.method().as_str().len() + request.uri().path().len() + 14;
        info.bytes.upstream_request_headers = line as u64 + headers_size(request.headers());
    }
}
