//! What the kernel tells of connections, on both sides. With `PROXY_UNDER_TEST` the same holds for Envoy.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/clusters.rs"]
mod cluster;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster::{Scripted, hosts, ok};
use support::{Proxy, wait};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A TCP proxy whose sides both count, as often as this says.
fn proxy(period: &str, to: SocketAddr) -> Proxy {
    let types = "type.googleapis.com/envoy.extensions";
    let socket = format!(
        "transport_socket: {{name: s, typed_config: {{\"@type\": {types}.transport_sockets.tcp_stats.v3.Config, \
         {period}transport_socket: {{name: raw, typed_config: {{\"@type\": \
         {types}.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}}}"
    );
    Proxy::ready(
        &format!(
            "static_resources:\n  listeners:\n  - name: in\n    stat_prefix: in\n    address: {{socket_address: \
             {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{{socket}, filters: [{{name: t, \
             typed_config: {{\"@type\": {types}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: \
             c}}}}]}}]\n  clusters:\n  - {{name: c, type: STATIC, connect_timeout: 5s, {socket}, {}}}\n",
            hosts("c", &[to])
        ),
        &[],
    )
}

/// One exchange, on a connection that stays.
fn ask(proxy: &Proxy, answer: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.listener("in")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(REQUEST).unwrap();
    let mut bytes = vec![0; answer.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, answer.as_bytes());
    stream
}

fn stat(proxy: &Proxy, name: &str) -> i64 {
    proxy.stat(name).unwrap_or(0)
}

/// Waits until both sides have counted the exchange, and perhaps the byte that stands for an end.
fn counted(proxy: &Proxy, answer: &str) {
    let (asked, answered) = (i64::try_from(REQUEST.len()).unwrap(), i64::try_from(answer.len()).unwrap());
    for (side, received, sent) in [("listener.in", asked, answered), ("cluster.c", answered, asked)] {
        let near = |name: &str, wanted: i64| {
            let found = stat(proxy, &format!("{side}.tcp_stats.{name}"));
            (wanted..=wanted + 1).contains(&found)
        };
        wait(&format!("the bytes of {side}"), || {
            (near("cx_rx_bytes_received", received) && near("cx_tx_bytes_sent", sent)).then_some(())
        });
        assert!(near("cx_tx_data_segments", 1) && near("cx_rx_data_segments", 1), "{side}");
        for name in ["cx_tx_segments", "cx_rx_segments"] {
            assert!(stat(proxy, &format!("{side}.tcp_stats.{name}")) >= 1, "{side} {name}");
        }
        for name in ["cx_tx_retransmitted_segments", "cx_tx_unsent_bytes", "cx_tx_unacked_segments"] {
            assert_eq!(stat(proxy, &format!("{side}.tcp_stats.{name}")), 0, "{side} {name}");
        }
    }
}

#[test]
fn connections_are_counted_at_their_end() {
    let answer = ok("an answer");
    let server = {
        let answer = answer.clone();
        Scripted::start(move |_| Some(answer.clone()))
    };
    let proxy = proxy("", server.address);
    let stream = ask(&proxy, &answer);
    assert_eq!(stat(&proxy, "cluster.c.tcp_stats.cx_tx_segments"), 0, "it goes on");
    drop(stream);
    counted(&proxy, &answer);
    wait("round trips", || {
        let body = proxy.admin("GET", "/stats?filter=tcp_stats.cx_rtt_us").body;
        (body.matches("P50(").count() == 2).then_some(())
    });
}

#[test]
fn connections_are_counted_while_they_last() {
    let answer = ok("an answer");
    let server = {
        let answer = answer.clone();
        Scripted::start(move |_| Some(answer.clone()))
    };
    let proxy = proxy("update_period: 0.05s, ", server.address);
    let _stream = ask(&proxy, &answer);
    counted(&proxy, &answer);
}
