//! Encodes header blocks.
//!
//! What is worth an entry of the table shows by itself: a value that comes a second time gets one, a value that never
//! comes again (an id of a request or a trace) evicts nothing. An unknown name gets an entry when it comes a second
//! time, with whatever value it has then: from there on it costs a byte or two.

use http::{HeaderName, HeaderValue};

use super::hash::{SEED, hash};
use super::index::{Index, Sought};
use super::{DEFAULT_TABLE, OVERHEAD, Pseudo, huffman, integer, static_table};

/// Cookies below this length might be guessed from the size of what is sent (RFC 7541, 7.1.3).
const SHORT_COOKIE: usize = 20;

/// Encodes the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    index: Index,
    /// How large we let the table become.
    limit: usize,
    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    setting: usize,
    /// The smallest size that the table had since the last block, if the next has to tell.
    shrunk: Option<usize>,
    huffman: bool,
}

/// How a literal is to be treated by who decodes it (RFC 7541, 6.2).
#[derive(Clone, Copy)]
enum Literal {
    Indexed,
    NotIndexed,
    NeverIndexed,
}

impl Encoder {
    /// With a table of [`DEFAULT_TABLE`].
    pub fn new() -> Self {
        Self::with_limit(DEFAULT_TABLE)
    }

    /// With a table of at most `limit`, whatever more the peer allows.
    pub fn with_limit(limit: usize) -> Self {
        let max = limit.min(DEFAULT_TABLE);
        Self {
            index: Index::new(max, limit),
            limit,
            setting: DEFAULT_TABLE,
            shrunk: (max < DEFAULT_TABLE).then_some(max),
            huffman: false,
        }
    }

    /// Whether strings are sent in the Huffman code where it is shorter.
    ///
    /// Off unless it is asked for, unlike Envoy's `enable_huffman_encoding`: what repeats is a byte or two from the
    /// table anyway, and the tens of bytes that it saves on the rest are cheaper than the work at both ends.
    pub fn huffman(&mut self, on: bool) {
        self.huffman = on;
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. The next block says what we make of it.
    pub fn set_max_table(&mut self, size: usize) {
        let max = size.min(self.limit);
        // A peer may insist on an answer to any reduction (RFC 9113, 4.3.1), also to one that we do not feel.
        if max != self.index.max() || size < self.setting {
            self.shrunk = Some(self.shrunk.map_or(max, |smallest| smallest.min(max)));
        }
        self.setting = size;
        self.index.set_max(max);
    }

    /// Starts a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.shrunk.take() {
            let max = self.index.max();
            if smallest < max {
                integer::encode(out, 0x20, 5, smallest);
            }
            integer::encode(out, 0x20, 5, max);
        }
    }

    /// Adds a pseudo-header to the block.
    pub fn encode_pseudo(&mut self, out: &mut Vec<u8>, pseudo: Pseudo, value: &[u8]) {
        if let Some(index) = static_table::pseudo_field(pseudo, value) {
            return indexed(out, index);
        }
        let (name, name_hash) = (pseudo.as_str().as_bytes(), PSEUDO_HASHES[pseudo as usize]);
        if let Some(age) = self.index.next_field(name, value) {
            return indexed(out, dynamic(age));
        }
        let known = static_table::pseudo_name(pseudo);
        if !self.fits(name, value) {
            return self.literal(out, Literal::NotIndexed, known, name, value);
        }
        let sought = Sought { name, name_hash, value, hash: hash(name_hash, value) };
        match self.index.field(&sought) {
            Some(age) => indexed(out, dynamic(age)),
            None => self.unknown(out, known, &sought),
        }
    }

    /// Adds a header to the block. A sensitive value stays out of every table on its way.
    pub fn encode(&mut self, out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
        let (text, bytes) = (name.as_str().as_bytes(), value.as_bytes());
        if !value.is_sensitive()
            && let Some(age) = self.index.next_field(text, bytes)
        {
            return indexed(out, dynamic(age));
        }
        let name_hash = hash(SEED, text);
        let mut sought = Sought { name: text, name_hash, value: bytes, hash: 0 };
        if value.is_sensitive() {
            let known = static_table::header_name(name, name_hash).or_else(|| self.dynamic_name(&sought));
            return self.literal(out, Literal::NeverIndexed, known, text, bytes);
        }
        let fits = self.fits(text, bytes);
        if fits {
            sought.hash = hash(name_hash, bytes);
            if let Some(age) = self.index.field(&sought) {
                return indexed(out, dynamic(age));
            }
        }
        let known = static_table::header_name(name, name_hash);
        match known {
            Some(index) if static_table::has_value(index, bytes) => indexed(out, index),
            Some(index) if is_secret(index, bytes) => {
                self.literal(out, Literal::NeverIndexed, known, text, bytes);
            }
            _ if fits => self.unknown(out, known, &sought),
            _ => {
                let known = known.or_else(|| self.dynamic_name(&sought));
                self.literal(out, Literal::NotIndexed, known, text, bytes);
            }
        }
    }

    /// Adds a field that no table has; the static one has its name at `known`.
    fn unknown(&mut self, out: &mut Vec<u8>, known: Option<usize>, field: &Sought<'_>) {
        let known = known.or_else(|| self.dynamic_name(field));
        let mut repeats = self.index.seen(field.hash);
        if known.is_none() {
            repeats |= self.index.seen(field.name_hash);
        }
        let literal = if repeats { Literal::Indexed } else { Literal::NotIndexed };
        self.literal(out, literal, known, field.name, field.value);
        if repeats {
            self.index.insert(field);
        }
    }

    /// Whether a field may become an entry: one that takes most of the table would cost all others.
    #[inline]
    fn fits(&self, name: &[u8], value: &[u8]) -> bool {
        name.len() + value.len() + OVERHEAD <= self.index.max() / 4 * 3
    }

    fn dynamic_name(&self, sought: &Sought<'_>) -> Option<usize> {
        self.index.name(sought).map(dynamic)
    }

    fn literal(&self, out: &mut Vec<u8>, kind: Literal, known: Option<usize>, name: &[u8], value: &[u8]) {
        let (kind, bits) = match kind {
            Literal::Indexed => (0x40, 6),
            Literal::NotIndexed => (0, 4),
            Literal::NeverIndexed => (0x10, 4),
        };
        integer::encode(out, kind, bits, known.unwrap_or(0));
        if known.is_none() {
            self.string(out, name);
        }
        self.string(out, value);
    }

    fn string(&self, out: &mut Vec<u8>, text: &[u8]) {
        if self.huffman {
            let len = huffman::encoded_len(text);
            if len < text.len() {
                integer::encode(out, 0x80, 7, len);
                return huffman::encode(text, out);
            }
        }
        integer::encode(out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

static PSEUDO_HASHES: [u64; 6] = {
    let all =
        [Pseudo::Method, Pseudo::Scheme, Pseudo::Authority, Pseudo::Path, Pseudo::Protocol, Pseudo::Status];
    let mut hashes = [0; 6];
    let mut next = 0;
    while next < all.len() {
        hashes[all[next] as usize] = hash(SEED, all[next].as_str().as_bytes());
        next += 1;
    }
    hashes
};

#[inline]
fn indexed(out: &mut Vec<u8>, index: usize) {
    integer::encode(out, 0x80, 7, index);
}

/// The index of a dynamic entry.
fn dynamic(age: usize) -> usize {
    static_table::LEN + 1 + age
}

/// Credentials, which are to stay out of tables even where nobody has marked them.
fn is_secret(name: usize, value: &[u8]) -> bool {
    match name {
        static_table::AUTHORIZATION | static_table::PROXY_AUTHORIZATION => true,
        static_table::COOKIE | static_table::SET_COOKIE => value.len() < SHORT_COOKIE,
        _ => false,
    }
}
