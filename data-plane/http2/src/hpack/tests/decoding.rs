//! What is refused, what is invalid, and what the table keeps of it.

use super::{Decoder, Error, Field, Pseudo, decoded, field, hex, table};

fn error(block: &str) -> Option<Error> {
    decoded(&mut Decoder::default(), &hex(block)).err()
}

#[test]
fn broken_blocks_are_refused() {
    for (block, expected) in [
        // Index 0, behind the static table, and as the name of a literal.
        ("80", Error::Index),
        ("be", Error::Index),
        ("ff80 8001", Error::Index),
        ("7e 0161", Error::Index),
        ("0f2f 0161", Error::Index),
        // Integers.
        ("ff", Error::Truncated),
        ("ff80 8080 8080 00", Error::Integer),
        ("ffff ffff ffff 7f", Error::Integer),
        // Literals that end early: no name, half a name, no value, half a value.
        ("40", Error::Truncated),
        ("4003 6162", Error::Truncated),
        ("4001 61", Error::Truncated),
        ("4001 6102 62", Error::Truncated),
        ("007f ffff ff0f", Error::Truncated),
        // Huffman: padding with a zero, eight ones, the end within.
        ("4001 6181 1e", Error::Huffman),
        ("4001 6181 ff", Error::Huffman),
        ("4001 6184 ffff ffff", Error::Huffman),
        // Sizes: more than we allow, and behind a field.
        ("3fe2 1f", Error::SizeUpdate),
        ("82 20", Error::SizeUpdate),
    ] {
        assert_eq!(error(block), Some(expected), "{block}");
    }
    assert_eq!(error("3fe1 1f"), None);
    assert_eq!(error("20 3fe1 1f 82"), None);
    assert_eq!(error(""), None);
}

#[test]
fn names_and_values_that_are_none_are_invalid() {
    for (name, value) in [
        ("", "v"),
        ("Upper", "v"),
        ("a b", "v"),
        ("a:b", "v"),
        ("a\"b", "v"),
        ("a\u{7f}", "v"),
        ("\u{e4}", "v"),
        (":unknown", "v"),
        (":", "v"),
        (":Path", "/"),
        ("a", "v\0w"),
        ("a", "v\nw"),
        ("a", "v\rw"),
        ("a", "v\u{1}w"),
        ("a", "v\u{7f}w"),
        (":path", "/\n"),
    ] {
        let mut block = vec![0, name.len() as u8];
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
        block.push(0x82);
        let get = field(":method", "GET");
        assert_eq!(
            decoded(&mut Decoder::default(), &block),
            Ok(vec![Field::Invalid, get]),
            "{name}: {value}"
        );
    }
}

#[test]
fn values_may_be_empty_and_hold_tabs_and_high_bytes() {
    let expected = ["", "v\tw", "\u{e4}\u{f6}"].map(|value| field("a", value));
    let block = hex("0001 6100 0001 6103 7609 7700 0161 04c3 a4c3 b6");
    assert_eq!(decoded(&mut Decoder::default(), &block), Ok(expected.into()));
}

#[test]
fn an_invalid_value_leaves_its_name_in_the_table() {
    let mut decoder = Decoder::default();
    // "a" with a line end, then the same name by index with another value.
    assert_eq!(decoded(&mut decoder, &hex("4001 6101 0a")), Ok(vec![Field::Invalid]));
    assert_eq!(decoded(&mut decoder, &hex("7e01 62")), Ok(vec![field("a", "b")]));
    assert_eq!(table(&mut decoder), (vec![field("a", "b"), Field::Invalid], 68));
    // "A" is none with any value, and counts as what was sent.
    assert_eq!(decoded(&mut decoder, &hex("4001 4101 62 7e01 62")), Ok(vec![Field::Invalid; 2]));
    assert_eq!(table(&mut decoder).1, 4 * 34);
}

#[test]
fn what_is_never_to_be_indexed_is_sensitive() {
    let sensitive = |block: &str| {
        let fields = decoded(&mut Decoder::default(), &hex(block)).unwrap();
        fields.iter().any(|field| matches!(field, Field::Header(_, value) if value.is_sensitive()))
    };
    assert!(sensitive("1001 6101 62"));
    assert!(sensitive("1f08 0162"));
    assert!(!sensitive("0001 6101 62"));
    assert!(!sensitive("4001 6101 62"));
    let path = decoded(&mut Decoder::default(), &hex("1401 2f"));
    assert_eq!(path, Ok(vec![Field::Pseudo(Pseudo::Path, "/".into())]));
}

#[test]
fn the_oldest_leave_when_there_is_no_room() {
    let mut decoder = Decoder::default();
    // Room for two entries of 34.
    let block = hex("3f25 4001 6101 31 4001 6201 32 4001 6301 33");
    assert_eq!(decoded(&mut decoder, &block).map(|fields| fields.len()), Ok(3));
    assert_eq!(table(&mut decoder), (vec![field("c", "3"), field("b", "2")], 68));
    // An entry may refer to the name of the one that leaves for it.
    assert_eq!(decoded(&mut decoder, &hex("7f00 01 34")), Ok(vec![field("b", "4")]));
    assert_eq!(table(&mut decoder), (vec![field("b", "4"), field("c", "3")], 68));
    // One that is larger than the table empties it.
    let large = hex(
        "4001 6126 31313131 31313131 31313131 31313131 31313131 31313131 31313131 31313131 31313131 3131",
    );
    assert_eq!(decoded(&mut decoder, &large).map(|fields| fields.len()), Ok(1));
    assert_eq!(table(&mut decoder), (vec![], 0));
}

#[test]
fn a_size_update_evicts_at_once() {
    let mut decoder = Decoder::default();
    decoded(&mut decoder, &hex("4001 6101 31 4001 6201 32")).unwrap();
    assert_eq!(decoded(&mut decoder, &hex("3f03 be")), Ok(vec![field("b", "2")]));
    assert_eq!(table(&mut decoder), (vec![field("b", "2")], 34));
    assert_eq!(decoded(&mut decoder, &hex("20 3fe1 1f")), Ok(vec![]));
    assert_eq!(table(&mut decoder), (vec![], 0));
}

#[test]
fn a_smaller_setting_holds_once_it_is_acknowledged() {
    let mut decoder = Decoder::new(100);
    // Until then the peer goes by the default.
    assert_eq!(decoded(&mut decoder, &hex("3fe1 1f 4001 6101 31")), Ok(vec![field("a", "1")]));
    decoder.settings_acknowledged();
    assert_eq!(decoded(&mut decoder, &hex("82")), Err(Error::SizeUpdate));
    assert_eq!(decoded(&mut decoder, &hex("3f46 82")), Err(Error::SizeUpdate));
    assert_eq!(decoded(&mut decoder, &hex("3f45 be")), Ok(vec![field("a", "1")]));
    assert_eq!(decoded(&mut decoder, &hex("be")), Ok(vec![field("a", "1")]));
}

#[test]
fn a_larger_setting_holds_at_once() {
    let mut decoder = Decoder::new(8192);
    assert_eq!(decoded(&mut decoder, &hex("3fe1 3f")), Ok(vec![]));
    assert_eq!(decoded(&mut decoder, &hex("3fe2 3f")), Err(Error::SizeUpdate));
}
