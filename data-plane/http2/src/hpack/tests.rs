//! Whole blocks, and how they are written down in the tests.

mod decoding;
mod encoding;
mod properties;
mod rfc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Decoder, Encoder, Error, Field, Pseudo};

/// A field as it is read: a pseudo-header if the name has a colon.
fn field(name: &str, value: &str) -> Field {
    match Pseudo::from_bytes(name.as_bytes()) {
        Some(pseudo) => Field::Pseudo(pseudo, Bytes::copy_from_slice(value.as_bytes())),
        None => Field::Header(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        ),
    }
}

fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    list.iter().map(|(name, value)| field(name, value)).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, Error> {
    let mut fields = Vec::new();
    decoder.decode(block, |field, size| {
        match &field {
            Field::Pseudo(pseudo, value) => assert_eq!(size, pseudo.as_str().len() + value.len() + 32),
            Field::Header(name, value) => assert_eq!(size, name.as_str().len() + value.len() + 32),
            Field::Invalid => assert!(size >= 32),
        }
        fields.push(field);
    })?;
    Ok(fields)
}

fn encoded(encoder: &mut Encoder, fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for field in fields {
        match field {
            Field::Pseudo(pseudo, value) => encoder.encode_pseudo(&mut block, *pseudo, value),
            Field::Header(name, value) => encoder.encode(&mut block, name, value),
            Field::Invalid => {}
        }
    }
    block
}

/// The dynamic table of a decoder, newest first, and its size.
fn table(decoder: &mut Decoder) -> (Vec<Field>, usize) {
    let (mut entries, mut all) = (Vec::new(), 0);
    for index in 62.. {
        let mut block = Vec::new();
        super::integer::encode(&mut block, 0x80, 7, index);
        let each = |field, size| {
            entries.push(field);
            all += size;
        };
        match decoder.decode(&block, each) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, Error::Index);
                break;
            }
        }
    }
    (entries, all)
}
