//! Connections on which nothing happens for long: they hold little, and are as good as new when something does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::certs::Authority;
use crate::support::{Backend, Proxy};
use crate::{Gate, HCM, PATIENCE, ROUTER, serves};

/// Longer than a connection keeps its codec for a silent client.
const SILENCE: Duration = Duration::from_millis(4500);

const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: test\r\n\r\n";

/// One answer on a connection that lives on.
fn answer(from: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(from.read(&mut byte).unwrap_or(0), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    from.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
    head
}

/// Requests between silences: whole, in halves around a silence, and two in one piece.
fn talks(mut connection: impl Read + Write) {
    let mut ask = |pieces: &[&[u8]], answers: usize| {
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 {
                // The silence is what is tested; nothing tells from outside when the codec is gone.
                thread::sleep(SILENCE);
            }
            connection.write_all(piece).unwrap();
        }
        for _ in 0..answers {
            let head = answer(&mut connection);
            assert!(head.starts_with("http/1.1 200"), "{head}");
        }
    };
    ask(&[GET], 1);
    ask(&[b"", GET], 1);
    ask(&[b"", &GET[..9], &GET[9..]], 1);
    ask(&[b"", &[GET, GET].concat()], 2);
}

#[test]
fn a_silent_client_is_served_again() {
    let gate = Gate::new("", "");
    let connection = TcpStream::connect(gate.to).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    talks(connection);
    assert_eq!(gate.seen_after("silence").len(), 5);
}

#[test]
fn a_silent_client_is_served_again_over_tls() {
    let (authority, backend) = (Authority::new(), Backend::start("a"));
    let signed = authority.sign(1, &["a.test"]);
    let certificate = serde_json::json!({
        "certificate_chain": { "inline_string": signed.cert },
        "private_key": { "inline_string": signed.key },
    });
    let text = format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{transport_socket: {{name: tls, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
         common_tls_context: {{tls_certificates: [{certificate}]}}}}}}, filters: [{{name: hcm, typed_config: \
         {{\"@type\": {HCM}, stat_prefix: l, route_config: {{virtual_hosts: [{{name: v, domains: [\"*\"], \
         routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}]}}, http_filters: [{ROUTER}]}}}}]}}]\n  \
         clusters:\n  - {{name: a, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: a, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}\n",
        backend.address.port()
    );
    let proxy = Proxy::ready(&text, &[]);
    talks(authority.connect(proxy.listener("l"), "a.test", None).unwrap());
}

#[test]
fn clients_that_leave_in_silence_are_forgotten() {
    let gate = Gate::new("", "common_http_protocol_options: {idle_timeout: 4s},");
    let mut stays = TcpStream::connect(gate.to).unwrap();
    let mut leaves = TcpStream::connect(gate.to).unwrap();
    for connection in [&mut stays, &mut leaves] {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(GET).unwrap();
        answer(connection);
    }
    thread::sleep(Duration::from_millis(2500));
    drop(leaves);
    // The timeout holds as it does with a codec.
    assert_eq!(stays.read(&mut [0]).unwrap(), 0);
    crate::support::wait("both to be gone", || {
        (gate.stat("http.l.downstream_cx_active") == Some(0)).then_some(())
    });
    assert!(serves(gate.to));
}
