//! Bytes that mean nothing, or nearly something: whatever comes, the proxy lives and serves the next client.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, get};
use crate::{Gate, serves};

/// What noise is made from.
fn seeds() -> Vec<Vec<u8>> {
    let mut http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    http2.extend(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
    http2.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/x")));
    // A client's hello with a name, as far as sniffers look.
    let mut hello = vec![22, 3, 1, 0, 60, 1, 0, 0, 56, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 19, 1, 1, 0, 0, 13, 0, 0, 0, 9, 0, 7, 0, 0, 4, b't', b'e', b's', b't']);
    vec![
        b"GET /x?y HTTP/1.1\r\nhost: test\r\na: b\r\n\r\n".to_vec(),
        b"POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nt: u\r\n\r\n".to_vec(),
        b"CONNECT test:80 HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
        http2,
        hello,
    ]
}

/// A seed with some of its bytes changed, and cut.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let all = (prop::sample::select(seeds()), changes, any::<prop::sample::Index>(), any::<bool>());
    all.prop_map(|(mut bytes, changes, end, cut)| {
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

#[test]
fn whatever_comes_the_next_client_is_served() {
    stands_noise(&Gate::new("", ""), 600);
}

#[test]
fn whatever_is_inspected_the_next_client_is_served() {
    stands_noise(&Gate::inspecting(), 400);
}

fn stands_noise(gate: &Gate, cases: u32) {
    use std::io::Write;
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&noise(), |bytes| {
        let mut client = std::net::TcpStream::connect(gate.to)?;
        let _ = client.write_all(&bytes);
        drop(client);
        prop_assert!(serves(gate.to), "{:?}", String::from_utf8_lossy(&bytes));
        Ok(())
    });
    result.unwrap();
    gate.seen();
}
