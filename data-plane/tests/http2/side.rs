//! One of the two proxies, and what a case shows of it.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use crate::beside::{Running, until};
use crate::case::{Case, Step};
use crate::frames::{Peer, SETTINGS, settings};
use crate::upstream::Upstream;
use crate::wire::Wire;

/// What is logged of each request.
pub(crate) const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %UPSTREAM_TRANSPORT_FAILURE_REASON% %REQ(:METHOD)% %REQ(:PATH)% tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT%";

/// How long it may take until a case is logged and counted.
const LOGGED: Duration = Duration::from_secs(3);

/// Counters that are compared.
const COUNTED: &str = concat!(
    r"^(cluster\.b\.)?http2\.|",
    r"^http\.in\.downstream_cx_(protocol_error|drain_close|idle_timeout|max)|",
    r"^http\.in\.downstream_rq_(1xx|completed|(rx|tx)_reset|too_many|resp|non_relative|failed_path|ws_on)|",
    r"^cluster\.b\.upstream_cx_(total|protocol_error|close_notify|idle)|",
    r"^cluster\.b\.upstream_rq_(1|completed|(rx|tx)_reset|retry$|pending_failure)",
);

/// Gauges, and counters of what Envoy is made of.
const NOT_COUNTED: &str = r"_active$|pending_send_bytes|ghttp2_|deferred_stream_close";

type Stats = BTreeMap<String, u64>;

pub(crate) struct Side {
    proxy: Running,
    upstream: Upstream,
    counted: regex::Regex,
    not_counted: regex::Regex,
}

impl Side {
    pub(crate) fn start(start: impl FnOnce(&str) -> Running, config: &str) -> Self {
        let upstream = Upstream::start();
        let config = config.replace("$UPSTREAM", &upstream.address.port().to_string());
        Self {
            proxy: start(&config),
            upstream,
            counted: regex::Regex::new(COUNTED).unwrap(),
            not_counted: regex::Regex::new(NOT_COUNTED).unwrap(),
        }
    }

    /// Runs a case, and tells the frames, the log's lines and the counters.
    pub(crate) fn show(&self, case: &Case) -> String {
        let (before, logged) = (self.stats(), self.proxy.log().len());
        let grown = |stats: &Stats, name: &str| of(stats, name).saturating_sub(of(&before, name));
        self.upstream.expect(case.upstream.clone(), case.mute);
        let client = self.talk(case);
        self.settled(|stats| of(stats, "http.in.downstream_cx_active") == 0);
        self.settled(|stats| grown(stats, "cluster.b.upstream_cx_total") <= self.upstream.connections());
        let upstream = self.upstream.finish(case.whole);
        let after = self.settled(|stats| of(stats, "cluster.b.upstream_cx_active") == 0);
        let lines = logged + usize::try_from(grown(&after, "http.in.downstream_rq_total")).unwrap();
        until(LOGGED, || (self.proxy.log().len() >= lines).then_some(()));
        let mut log = self.proxy.log().split_off(logged);
        log.sort_unstable();
        let counted =
            after.keys().filter(|name| self.counted.is_match(name) && !self.not_counted.is_match(name));
        let counted = counted.filter(|name| grown(&after, name) > 0);
        let counted = counted.map(|name| format!("{name} +{}", grown(&after, name)));
        let shown =
            [("client", vec![client]), ("upstream", upstream), ("log", log), ("stat", counted.collect())];
        let lines = shown.into_iter().flat_map(|(what, lines): (_, Vec<String>)| {
            lines.into_iter().map(move |line| format!("{what}: {line}"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The client's part.
    fn talk(&self, case: &Case) -> String {
        let to = self.proxy.listener(case.listener);
        let peer = match &case.greeting {
            Some(bytes) => {
                let mut peer = Peer::over(TcpStream::connect(to).unwrap());
                peer.send(bytes);
                peer
            }
            // What comes must not depend on a table.
            None => Peer::connect(to, &[settings(&[(1, 0)]), case.settings.clone()].concat()),
        };
        let mut wire = Wire::new(peer, &self.upstream.asked, case.mute);
        if case.acknowledges {
            wire.run(&[Step::Until(SETTINGS, 0)]);
        }
        wire.run(&case.steps);
        if case.settles {
            wire.run(&[Step::Settle]);
        }
        wire.told(case.whole)
    }

    /// The statistics, once they say this, or after long enough.
    fn settled(&self, enough: impl Fn(&Stats) -> bool) -> Stats {
        until(LOGGED, || Some(self.stats()).filter(|stats| enough(stats))).unwrap_or_else(|| self.stats())
    }

    fn stats(&self) -> Stats {
        let text = self.proxy.admin("/stats?usedonly").1;
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }
}

fn of(stats: &Stats, name: &str) -> u64 {
    stats.get(name).copied().unwrap_or_default()
}

/// A listener's name, the fields of its `http2_protocol_options` and further ones of its connection manager.
pub(crate) type Listener = (&'static str, &'static str, &'static str);

/// These listeners before an upstream that speaks HTTP/2 with these options.
pub(crate) fn config(listeners: &[Listener], upstream: &str) -> String {
    let routes = "[{match: {connect_matcher: {}, headers: [{name: ':authority', string_match: {exact: 'tunnel:1'}}]}, route: {cluster: b}}, \
        {match: {connect_matcher: {}, headers: [{name: ':authority', string_match: {exact: 'tcp:1'}}]}, route: {cluster: b, \
        upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}, \
        {match: {connect_matcher: {}, headers: [{name: ':authority', string_match: {exact: 'dead:1'}}]}, route: {cluster: dead, \
        upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}, \
        {match: {path: /direct}, direct_response: {status: 200, body: {inline_string: hello}}}, \
        {match: {path: /none}, direct_response: {status: 404}}, \
        {match: {path: /refused}, route: {cluster: b, retry_policy: {retry_on: refused-stream, retry_back_off: {base_interval: 0.001s}}}}, \
        {match: {path: /reset}, route: {cluster: b, retry_policy: {retry_on: reset, retry_back_off: {base_interval: 0.001s}}}}, \
        {match: {path: /short}, route: {cluster: b, timeout: 0.3s}}, \
        {match: {path: /flushed}, route: {cluster: b, timeout: 0s, idle_timeout: 9s, flush_timeout: 0.3s}}, \
        {match: {prefix: /}, route: {cluster: b, timeout: 0s}}]";
    let listeners = listeners.iter().map(|(name, options, more)| {
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: \
             [{{filters: [{{name: hcm, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.\
             http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, codec_type: HTTP2, access_log: $LOG, \
             delayed_close_timeout: 0.05s, http2_protocol_options: {{{options}}}, {more} http_filters: [{{name: \
             envoy.filters.http.router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.\
             router.v3.Router}}}}], route_config: {{virtual_hosts: [{{name: v, domains: [\"*\"], routes: {routes}}}]}}}}}}]}}]\n"
        )
    });
    format!(
        "static_resources:\n  listeners:\n{}  clusters:\n  - name: dead\n    load_assignment: {{cluster_name: dead, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}}}]}}]}}\n  - name: b\n    load_assignment: {{cluster_name: b, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: $UPSTREAM}}}}}}}}]}}]}}\n    \
         typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
         {{http2_protocol_options: {{{upstream}}}}}}}}}\n",
        listeners.collect::<String>()
    )
}
