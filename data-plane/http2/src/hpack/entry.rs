//! What the decoder's tables hold: fields as they are handed on, so that an indexed one costs a clone.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Field, OVERHEAD, Pseudo, table};

/// An entry of the static or the dynamic table.
#[derive(Debug)]
pub(super) struct Entry {
    /// An invalid one leaves its name, to which other fields may refer.
    field: Result<Field, Name>,
    /// The length of the name as it was sent.
    name_len: usize,
    size: usize,
}

/// The name of a field.
#[derive(Debug, Clone)]
pub(super) enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
    Invalid,
}

impl Entry {
    /// `name_len` is of the name as it was sent.
    pub(super) fn new(name: Name, name_len: usize, value: &[u8]) -> Self {
        Self { field: field(name, value), name_len, size: name_len + value.len() + OVERHEAD }
    }

    pub(super) const fn pseudo(pseudo: Pseudo, value: &'static str) -> Self {
        let field = Field::Pseudo(pseudo, Bytes::from_static(value.as_bytes()));
        Self::fixed(field, pseudo.as_str(), value)
    }

    pub(super) const fn header(name: &'static str, value: &'static str) -> Self {
        let field = Field::Header(HeaderName::from_static(name), HeaderValue::from_static(value));
        Self::fixed(field, name, value)
    }

    const fn fixed(field: Field, name: &str, value: &str) -> Self {
        Self { field: Ok(field), name_len: name.len(), size: name.len() + value.len() + OVERHEAD }
    }

    /// The name, and its length as it was sent.
    pub(super) fn name(&self) -> (Name, usize) {
        let name = match &self.field {
            Ok(Field::Header(name, _)) => Name::Header(name.clone()),
            Ok(Field::Pseudo(pseudo, _)) => Name::Pseudo(*pseudo),
            Ok(Field::Invalid) => Name::Invalid,
            Err(name) => name.clone(),
        };
        (name, self.name_len)
    }

    pub(super) fn has_name(&self, name: &HeaderName) -> bool {
        matches!(&self.field, Ok(Field::Header(own, _)) if own == name)
    }

    pub(super) fn has_value(&self, value: &[u8]) -> bool {
        matches!(&self.field, Ok(Field::Header(_, own)) if own == value)
    }

    #[inline]
    pub(super) fn field(&self) -> Field {
        self.field.as_ref().map_or(Field::Invalid, Field::clone)
    }

    pub(super) fn into_field(self) -> Field {
        self.field.unwrap_or(Field::Invalid)
    }
}

impl table::Entry for Entry {
    #[inline]
    fn size(&self) -> usize {
        self.size
    }
}

impl Name {
    pub(super) fn from_bytes(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return Pseudo::from_bytes(name).map_or(Self::Invalid, Self::Pseudo);
        }
        // The quote is no character of a token; `http` lets it pass.
        match HeaderName::from_lowercase(name) {
            Ok(header) if !any(name, |byte| byte == b'"') => Self::Header(header),
            _ => Self::Invalid,
        }
    }
}

/// The field, or its name if there is no such field.
fn field(name: Name, value: &[u8]) -> Result<Field, Name> {
    match name {
        Name::Header(name) => match HeaderValue::from_bytes(value) {
            Ok(value) => Ok(Field::Header(name, value)),
            Err(_) => Err(Name::Header(name)),
        },
        Name::Pseudo(pseudo) if !any(value, is_control) => {
            Ok(Field::Pseudo(pseudo, Bytes::copy_from_slice(value)))
        }
        _ => Err(name),
    }
}

/// Looks at all bytes, several at once: to leave early costs more.
#[inline]
fn any(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, &byte| found | is(byte))
}

/// What `HeaderValue` refuses.
#[inline]
fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}
