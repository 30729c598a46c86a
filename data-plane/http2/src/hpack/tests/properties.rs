//! What holds for any fields and any bytes.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{Decoder, Encoder, Field, Pseudo, decoded, encoded, table};

/// Mostly what repeats, so that the table is used, sometimes anything.
fn a_field() -> impl Strategy<Value = Field> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["etag", "cookie", "via", "x-a", "x-b", "x-request-id", "accept-encoding"])
            .prop_map(str::to_owned),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,40}",
    ];
    let value = prop_oneof![
        4 => (0..40u8, 0..60usize).prop_map(|(byte, len)| vec![b'A' + byte; len]),
        1 => prop::collection::vec(b'!'..=b'~', 0..300),
        1 => prop::collection::vec(0x80..=0xffu8, 0..20),
    ];
    let pseudo = prop::sample::select(vec![
        Pseudo::Method,
        Pseudo::Scheme,
        Pseudo::Authority,
        Pseudo::Path,
        Pseudo::Protocol,
        Pseudo::Status,
    ]);
    prop_oneof![
        1 => (pseudo, value.clone()).prop_map(|(pseudo, value)| Field::Pseudo(pseudo, value.into())),
        3 => (name, value, prop::bool::weighted(0.1)).prop_map(|(name, value, sensitive)| {
            let mut value = HeaderValue::from_maybe_shared(Bytes::from(value)).unwrap();
            value.set_sensitive(sensitive);
            Field::Header(HeaderName::from_bytes(name.as_bytes()).unwrap(), value)
        }),
    ]
}

fn a_block() -> impl Strategy<Value = (Vec<usize>, Vec<Field>)> {
    let sizes = prop_oneof![
        5 => Just(vec![]),
        1 => prop::collection::vec(prop_oneof![0..300usize, 0..9000usize], 1..4),
    ];
    (sizes, prop::collection::vec(a_field(), 0..20))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        limit in prop_oneof![Just(4096), 0..300usize, 0..10_000usize],
        huffman: bool,
        blocks in prop::collection::vec(a_block(), 1..30),
    ) {
        let mut encoder = Encoder::with_limit(limit);
        encoder.huffman(huffman);
        let mut decoder = Decoder::new(9000);
        for (sizes, fields) in blocks {
            for size in sizes {
                encoder.set_max_table(size);
            }
            let block = encoded(&mut encoder, &fields);
            let back = decoded(&mut decoder, &block);
            prop_assert_eq!(back.as_ref(), Ok(&fields));
            // Equality knows nothing of sensitivity.
            for (sent, got) in fields.iter().zip(back.iter().flatten()) {
                if let (Field::Header(_, sent), Field::Header(_, got)) = (sent, got) {
                    prop_assert!(got.is_sensitive() || !sent.is_sensitive());
                }
            }
        }
        prop_assert!(table(&mut decoder).1 <= limit.max(4096));
    }

    #[test]
    fn any_bytes_leave_the_table_within_its_bounds(blocks in prop::collection::vec(any::<Vec<u8>>(), 0..20)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            // An error would end the connection; the next block shows that it leaves nothing that panics.
            let _ = decoder.decode(&block, |_, _| ());
        }
        prop_assert!(table(&mut decoder).1 <= 4096);
    }

    #[test]
    fn broken_blocks_do_not_panic(fields in prop::collection::vec(a_field(), 1..20), at: prop::sample::Index, byte: u8) {
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new();
        for _ in 0..3 {
            let mut block = encoded(&mut encoder, &fields);
            let at = at.index(block.len());
            block[at] = byte;
            let _ = decoder.decode(&block, |_, _| ());
            let _ = decoder.decode(&block[..at], |_, _| ());
        }
        prop_assert!(table(&mut decoder).1 <= 4096);
    }
}
