//! What a message's headers say to the codec, noted as they are read: to look them up afterwards would cost more.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Version};

use super::error::Invalid;

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    length: Given<u64>,
    /// `chunked`: the one coding that Envoy takes, and that every reader takes alike.
    coding: Given<()>,
    closes: bool,
    keeps_alive: bool,
}

/// A header that may be given once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Given<T> {
    #[default]
    Never,
    Once(T),
    /// Twice, or what cannot be read.
    Badly,
}

impl<T: Copy> Given<T> {
    fn note(&mut self, value: Option<T>) {
        *self = match (&self, value) {
            (Self::Never, Some(value)) => Self::Once(value),
            _ => Self::Badly,
        };
    }

    fn get(self, bad: Invalid) -> Result<Option<T>, Invalid> {
        match self {
            Self::Never => Ok(None),
            Self::Once(value) => Ok(Some(value)),
            Self::Badly => Err(bad),
        }
    }
}

impl Noted {
    pub(super) fn note(&mut self, name: &HeaderName, value: &[u8]) {
        if name == CONTENT_LENGTH {
            self.length.note(number(value));
        } else if name == TRANSFER_ENCODING {
            self.coding.note(value.eq_ignore_ascii_case(b"chunked").then_some(()));
        } else if name == CONNECTION || name == PROXY_CONNECTION {
            for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.closes |= token.eq_ignore_ascii_case(b"close");
                self.keeps_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }

    /// The length that is given.
    pub(super) fn length(&self) -> Result<Option<u64>, Invalid> {
        self.length.get(Invalid::ContentLength)
    }

    /// Whether the body has a coding, readable or not.
    pub(super) fn is_coded(&self) -> bool {
        self.coding != Given::Never
    }

    /// Whether the body comes in chunks.
    pub(super) fn is_chunked(&self) -> Result<bool, Invalid> {
        Ok(self.coding.get(Invalid::TransferEncoding)?.is_some())
    }

    /// Whether the message leaves its connection open, by RFC 9112 §9.3.
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.closes && (version == Version::HTTP_11 || self.keeps_alive)
    }
}

/// A length: digits alone.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
