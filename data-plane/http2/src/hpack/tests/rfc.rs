//! The examples of RFC 7541, Appendix C.

use super::{Decoder, Encoder, decoded, encoded, field, fields, hex, table};

/// A block, what it says, and the table behind it.
struct Example<'a> {
    block: &'a str,
    fields: &'a [(&'a str, &'a str)],
    table: &'a [(&'a str, &'a str)],
    size: usize,
}

fn follow(mut decoder: Decoder, examples: &[Example<'_>]) {
    for example in examples {
        let block = hex(example.block);
        assert_eq!(decoded(&mut decoder, &block), Ok(fields(example.fields)), "{}", example.block);
        assert_eq!(table(&mut decoder), (fields(example.table), example.size), "{}", example.block);
    }
}

/// A decoder whose peer has chosen a table of 256 bytes.
fn small() -> Decoder {
    let mut decoder = Decoder::default();
    assert_eq!(decoded(&mut decoder, &hex("3fe101")), Ok(vec![]));
    decoder
}

#[test]
fn c_2_single_fields() {
    let custom = [("custom-key", "custom-header")];
    let path = [(":path", "/sample/path")];
    let block = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    follow(Decoder::default(), &[Example { block, fields: &custom, table: &custom, size: 55 }]);
    let block = "040c 2f73 616d 706c 652f 7061 7468";
    follow(Decoder::default(), &[Example { block, fields: &path, table: &[], size: 0 }]);
    let block = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    let secret = [("password", "secret")];
    follow(Decoder::default(), &[Example { block, fields: &secret, table: &[], size: 0 }]);
    follow(
        Decoder::default(),
        &[Example { block: "82", fields: &[(":method", "GET")], table: &[], size: 0 }],
    );
}

const FIRST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: [(&str, &str); 5] = [FIRST[0], FIRST[1], FIRST[2], FIRST[3], ("cache-control", "no-cache")];
const THIRD: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

fn requests(blocks: [&str; 3]) {
    let examples = [
        Example { block: blocks[0], fields: &FIRST, table: &[FIRST[3]], size: 57 },
        Example { block: blocks[1], fields: &SECOND, table: &[SECOND[4], FIRST[3]], size: 110 },
        Example { block: blocks[2], fields: &THIRD, table: &[THIRD[4], SECOND[4], FIRST[3]], size: 164 },
    ];
    follow(Decoder::default(), &examples);
}

#[test]
fn c_3_requests() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn c_4_requests_with_huffman() {
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const AT_21: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const AT_22: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const FOO: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

fn responses(blocks: [&str; 3]) {
    let (s302, s307, s200) = ((":status", "302"), (":status", "307"), (":status", "200"));
    let examples = [
        Example {
            block: blocks[0],
            fields: &[s302, PRIVATE, AT_21, LOCATION],
            table: &[LOCATION, AT_21, PRIVATE, s302],
            size: 222,
        },
        Example {
            block: blocks[1],
            fields: &[s307, PRIVATE, AT_21, LOCATION],
            table: &[s307, LOCATION, AT_21, PRIVATE],
            size: 222,
        },
        Example {
            block: blocks[2],
            fields: &[s200, PRIVATE, AT_22, LOCATION, GZIP, FOO],
            table: &[FOO, GZIP, AT_22],
            size: 215,
        },
    ];
    follow(small(), &examples);
}

#[test]
fn c_5_responses() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
         7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
         6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn c_6_responses_with_huffman() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

#[test]
fn what_the_encoder_sends_the_second_time_is_the_rfcs_first() {
    let mut encoder = Encoder::new();
    assert_eq!(encoded(&mut encoder, &fields(&[(":path", "/sample/path")]))[..1], [0x04]);
    encoded(&mut encoder, &fields(&FIRST));
    let block = encoded(&mut encoder, &fields(&FIRST));
    assert_eq!(block, hex("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"));
    encoded(&mut encoder, &[field("cache-control", "no-cache")]);
    assert_eq!(encoded(&mut encoder, &fields(&SECOND)), hex("8286 84be 5808 6e6f 2d63 6163 6865"));

    let mut encoder = Encoder::new();
    encoder.huffman(true);
    encoded(&mut encoder, &fields(&FIRST));
    assert_eq!(encoded(&mut encoder, &fields(&FIRST)), hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"));
    encoded(&mut encoder, &[field("custom-key", "custom-value")]);
    let block = encoded(&mut encoder, &[field("custom-key", "custom-value")]);
    assert_eq!(block, hex("4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"));
}
