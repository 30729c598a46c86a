//! How sessions are resumed: by tickets whose keys are given, so that other processes and later ones take them, or that
//! are made up here; by id; and for how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::{hmac, iv::FixedLength};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
};
use sail_proxy_config::secret::TicketKeys;
use sail_proxy_config::tls::DownstreamTls;

/// How long a session can be resumed where the configuration says nothing.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Sessions that are kept for resumption by id.
const SESSIONS: usize = 256;

/// Whose keys encrypt tickets.
pub(super) enum Keys {
    /// There are no tickets.
    None,
    /// This process's own.
    Own,
    /// Those of the configuration.
    Shared(Arc<TicketKeys>),
}

/// Sets a server's resumption. `context` stands for whom the server trusts and who it is: a ticket of another context
/// opens nothing here, though its key is the same.
pub(super) fn set(config: &mut ServerConfig, tls: &DownstreamTls, keys: Keys, context: [u8; 32]) {
    let timeout = tls.session_timeout;
    if tls.disable_stateful_session_resumption {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    } else if let Some(lifetime) = timeout {
        config.session_storage = Arc::new(Timed { inner: ServerSessionMemoryCache::new(SESSIONS), lifetime });
    }
    let ticketer: Option<Arc<dyn ProducesTickets>> = match keys {
        Keys::None => None,
        Keys::Own => Ticketer::new().ok(),
        Keys::Shared(keys) => {
            let keys: Option<Box<[Key]>> = keys.keys.iter().map(|key| Key::new(&key.0)).collect();
            keys.map(|keys| Arc::new(Shared { keys, context }) as Arc<dyn ProducesTickets>)
        }
    };
    // Sessions of TLS 1.3 are resumed by ticket or not at all.
    config.send_tls13_tickets = usize::from(ticketer.is_some());
    let Some(inner) = ticketer else { return };
    let lifetime = timeout.or_else(|| inner.has_no_end().then_some(LIFETIME));
    config.ticketer = match lifetime {
        Some(lifetime) => Arc::new(Timed { inner, lifetime }),
        None => inner,
    };
}

trait HasNoEnd {
    /// Whether its tickets stay good for ever unless somebody sees to it.
    fn has_no_end(&self) -> bool;
}

impl HasNoEnd for Arc<dyn ProducesTickets> {
    fn has_no_end(&self) -> bool {
        self.lifetime() == u32::MAX
    }
}

/// One of the keys that are given: its name, and what it is made of.
struct Key {
    name: [u8; 16],
    mac: hmac::Key,
    encrypt: PaddedBlockEncryptingKey,
    decrypt: PaddedBlockDecryptingKey,
}

impl Key {
    fn new(bytes: &[u8]) -> Option<Self> {
        let (name, rest) = bytes.split_first_chunk::<16>()?;
        let (mac, aes) = rest.split_at_checked(32)?;
        let cipher = || UnboundCipherKey::new(&AES_256, aes).ok();
        Some(Self {
            name: *name,
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            encrypt: PaddedBlockEncryptingKey::cbc_pkcs7(cipher()?).ok()?,
            decrypt: PaddedBlockDecryptingKey::cbc_pkcs7(cipher()?).ok()?,
        })
    }
}

/// Tickets as RFC 5077 recommends them, by keys that several processes have.
struct Shared {
    keys: Box<[Key]>,
    context: [u8; 32],
}

const NAME: usize = 16;
const IV: usize = 16;
const TAG: usize = 32;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn authenticated(&self, ticket: &[u8]) -> Vec<u8> {
        [&self.context[..], ticket].concat()
    }
}

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::MAX
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut sealed = plain.to_vec();
        let context = key.encrypt.encrypt(&mut sealed).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mut ticket = Vec::with_capacity(NAME + IV + sealed.len() + TAG);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(iv);
        ticket.extend_from_slice(&sealed);
        let tag = hmac::sign(&key.mac, &self.authenticated(&ticket));
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (sealed, tag) = ticket.split_at_checked(ticket.len().checked_sub(TAG)?)?;
        let (name, rest) = sealed.split_first_chunk::<NAME>()?;
        let (iv, encrypted) = rest.split_first_chunk::<IV>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        hmac::verify(&key.mac, &self.authenticated(sealed), tag).ok()?;
        let mut plain = encrypted.to_vec();
        let length = {
            let context = DecryptionContext::Iv128(FixedLength::from(iv));
            key.decrypt.decrypt(&mut plain, context).ok()?.len()
        };
        plain.truncate(length);
        Some(plain)
    }
}

/// Sessions that are good for so long and no longer, whatever keeps them.
#[derive(Debug)]
struct Timed<T: ?Sized> {
    lifetime: Duration,
    inner: T,
}

impl<T: ?Sized> Timed<T> {
    /// A session, and when it was made.
    fn stamp(plain: &[u8], now: u64) -> Vec<u8> {
        [&now.to_be_bytes()[..], plain].concat()
    }

    /// The session, if it is not too old.
    fn fresh(&self, stamped: &[u8], now: u64) -> Option<Vec<u8>> {
        let (made, plain) = stamped.split_first_chunk::<8>()?;
        let age = now.checked_sub(u64::from_be_bytes(*made))?;
        (age <= self.lifetime.as_secs()).then(|| plain.to_vec())
    }
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

impl ProducesTickets for Timed<Arc<dyn ProducesTickets>> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&Self::stamp(plain, now()))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.decrypt(ticket)?, now())
    }
}

impl StoresServerSessions for Timed<Arc<ServerSessionMemoryCache>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, Self::stamp(&value, now()))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.get(key)?, now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.take(key)?, now())
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(keys: &[u8], context: u8) -> Shared {
        let keys = keys.iter().map(|byte| Key::new(&[*byte; 80]).unwrap()).collect();
        Shared { keys, context: [context; 32] }
    }

    #[test]
    fn who_has_the_key_opens_tickets_of_the_same_context() {
        let ticket = shared(&[1], 7).encrypt(b"a session").unwrap();
        assert_eq!(shared(&[1], 7).decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(shared(&[2, 1], 7).decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(shared(&[2], 7).decrypt(&ticket), None);
        assert_eq!(shared(&[1], 8).decrypt(&ticket), None, "another context");
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert_eq!(shared(&[1], 7).decrypt(&broken), None, "byte {at}");
            assert_eq!(shared(&[1], 7).decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn sessions_end() {
        let timed = Timed { inner: (), lifetime: Duration::from_secs(10) };
        let stamped = Timed::<()>::stamp(b"x", 100);
        assert_eq!(timed.fresh(&stamped, 110).as_deref(), Some(&b"x"[..]));
        assert_eq!([timed.fresh(&stamped, 111), timed.fresh(&stamped, 99)], [None, None]);
    }
}
