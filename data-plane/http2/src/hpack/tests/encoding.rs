//! What the encoder puts into the table, and what it keeps out.

use http::HeaderValue;
use http::header::{AUTHORIZATION, COOKIE};

use super::{Decoder, Encoder, Field, decoded, encoded, field, fields, hex, table};

/// A decoder behind an encoder.
#[derive(Default)]
struct Pair {
    encoder: Encoder,
    decoder: Decoder,
}

impl Pair {
    /// Sends a block, and gives its length.
    fn send(&mut self, fields: &[Field]) -> usize {
        let block = encoded(&mut self.encoder, fields);
        assert_eq!(decoded(&mut self.decoder, &block).as_deref(), Ok(fields));
        block.len()
    }

    fn table(&mut self) -> Vec<Field> {
        table(&mut self.decoder).0
    }
}

#[test]
fn what_comes_twice_is_indexed() {
    let mut pair = Pair::default();
    let agent = fields(&[("user-agent", "curl/8"), (":authority", "reviews:9080"), (":path", "/reviews/1")]);
    assert_eq!([0; 4].map(|_| pair.send(&agent)), [35, 34, 3, 3]);
    assert_eq!(pair.table().len(), 3);
}

#[test]
fn what_is_unique_evicts_nothing() {
    let mut pair = Pair::default();
    for request in 0..1000 {
        let id = format!("{request:036}");
        let length = pair.send(&fields(&[("x-request-id", &id), (":authority", "reviews"), ("etag", &id)]));
        // Once the name of the id is in the table: a length, a name by its index.
        assert!(request < 2 || length == 39 + 1 + 39, "{request}: {length}");
    }
    assert_eq!(pair.table().len(), 2);
}

#[test]
fn fields_of_the_static_table_are_never_literals() {
    let mut pair = Pair::default();
    let list = [
        (":method", "GET"),
        (":method", "POST"),
        (":path", "/"),
        (":path", "/index.html"),
        (":scheme", "http"),
        (":scheme", "https"),
        (":status", "200"),
        (":status", "204"),
        (":status", "206"),
        (":status", "304"),
        (":status", "400"),
        (":status", "404"),
        (":status", "500"),
        (":authority", ""),
        ("accept-encoding", "gzip, deflate"),
        ("www-authenticate", ""),
    ];
    assert_eq!(pair.send(&fields(&list)), list.len());
    // All names but one are known, among them that of every header; first comes a kind, last a value.
    assert_eq!(pair.send(&fields(&[(":status", "418"), (":method", "PUT"), (":scheme", "ftp")])), 3 * 5);
    assert_eq!(pair.send(&fields(&[(":protocol", "websocket")])), 1 + 10 + 10);
}

#[test]
fn the_static_names_are_found() {
    for index in 15..=61 {
        let mut block = Vec::new();
        super::super::integer::encode(&mut block, 0, 4, index);
        block.extend(hex("0178"));
        let fields = decoded(&mut Decoder::default(), &block).unwrap();
        let Field::Header(name, value) = &fields[0] else { panic!("{index}") };
        let mut encoder = Encoder::new();
        let mut again = Vec::new();
        encoder.encode(&mut again, name, value);
        // But for credentials, which are never indexed.
        assert_eq!(again[0] & 0x0f, block[0]);
        assert_eq!(again[1..], block[1..]);
    }
}

#[test]
fn secrets_stay_out_of_the_table() {
    let mut secret = HeaderValue::from_static("secret");
    secret.set_sensitive(true);
    let short = HeaderValue::from_static("id=1234567890123456");
    let long = HeaderValue::from_static("id=12345678901234567");
    let list = [
        Field::Header(AUTHORIZATION, HeaderValue::from_static("Bearer abcdefghijklmnopqrstuvwxyz")),
        Field::Header(COOKIE, short),
        field("proxy-authorization", "Basic YTpi"),
        field("set-cookie", "a=b"),
        Field::Header("x-token".try_into().unwrap(), secret),
    ];
    let mut pair = Pair::default();
    for _ in 0..4 {
        pair.send(&list);
        let block = encoded(&mut Encoder::new(), &list);
        let marked = decoded(&mut Decoder::default(), &block).unwrap();
        assert!(marked.iter().all(|field| matches!(field, Field::Header(_, value) if value.is_sensitive())));
    }
    assert_eq!(pair.table(), []);
    for _ in 0..3 {
        pair.send(&[Field::Header(COOKIE, long.clone())]);
    }
    assert_eq!(pair.table(), [Field::Header(COOKIE, long)]);
}

#[test]
fn a_sensitive_value_is_not_found_where_its_like_is_indexed() {
    let mut pair = Pair::default();
    let plain = HeaderValue::from_static("value");
    let mut secret = plain.clone();
    secret.set_sensitive(true);
    let name = http::HeaderName::from_static("x-name");
    for _ in 0..3 {
        pair.send(&[Field::Header(name.clone(), plain.clone())]);
    }
    // The name is taken from the table.
    assert_eq!(pair.send(&[Field::Header(name, secret)]), 2 + 1 + 5);
}

#[test]
fn what_would_fill_the_table_is_not_indexed() {
    let mut pair = Pair::default();
    let most = "x".repeat(4096 / 4 * 3 - 32 - 4);
    let more = format!("{most}x");
    for _ in 0..3 {
        pair.send(&[field("etag", &more), field("x-long", &more)]);
    }
    assert_eq!(pair.table(), []);
    for _ in 0..3 {
        pair.send(&[field("etag", &most)]);
    }
    assert_eq!(pair.table(), [field("etag", &most)]);
}

#[test]
fn the_table_turns_over() {
    let mut pair = Pair::default();
    for round in 0..200 {
        let value = format!("{round:0100}");
        let list = fields(&[("x-a", &value), ("x-b", &value), ("etag", &value)]);
        pair.send(&list);
        pair.send(&list);
        assert_eq!(pair.send(&list), 3, "{round}");
    }
    let (entries, size) = table(&mut pair.decoder);
    assert!(size <= 4096 && entries.len() == 4096 / 136, "{size}, {}", entries.len());
}

#[test]
fn a_change_of_the_size_is_told_once() {
    let begun = |encoder: &mut Encoder| encoded(encoder, &[]);
    let mut encoder = Encoder::new();
    assert_eq!(begun(&mut encoder), []);
    encoder.set_max_table(4096);
    encoder.set_max_table(65536);
    assert_eq!(begun(&mut encoder), []);
    encoder.set_max_table(0);
    assert_eq!(begun(&mut encoder), hex("20"));
    assert_eq!(begun(&mut encoder), []);
    encoder.set_max_table(100);
    encoder.set_max_table(10);
    encoder.set_max_table(65536);
    assert_eq!(begun(&mut encoder), hex("2a 3fe1 1f"));
    // A reduction that leaves enough is answered all the same.
    encoder.set_max_table(8192);
    assert_eq!(begun(&mut encoder), hex("3fe1 1f"));
    assert_eq!(begun(&mut encoder), []);
}

#[test]
fn a_limit_of_ours_is_told_or_awaits_the_peers() {
    assert_eq!(encoded(&mut Encoder::with_limit(0), &[]), hex("20"));
    let mut encoder = Encoder::with_limit(8192);
    assert_eq!(encoded(&mut encoder, &[]), []);
    encoder.set_max_table(65536);
    assert_eq!(encoded(&mut encoder, &[]), hex("3fe1 3f"));
}

#[test]
fn a_shrunk_table_forgets() {
    let mut pair = Pair::default();
    let list = fields(&[("x-a", "1"), ("x-b", "2")]);
    for _ in 0..3 {
        pair.send(&list);
    }
    assert_eq!(pair.table(), [list[1].clone(), list[0].clone()]);
    pair.encoder.set_max_table(35);
    pair.encoder.set_max_table(4096);
    // Two updates, then "x-a" anew: but it was seen before.
    assert_eq!(pair.send(&list[..1]), 2 + 3 + 7);
    assert_eq!(pair.table(), list[..1]);
}
