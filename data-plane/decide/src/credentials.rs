//! User names with passwords, and keys of clients.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;

use crate::head::{HeaderKey, RequestHead};
use crate::matcher::query_value;
use crate::route::cookie;

/// Users, and the SHA-1 of their passwords.
#[derive(Default)]
pub struct Users(HashMap<Box<str>, Box<[u8]>>);

impl std::fmt::Debug for Users {
    /// Passwords are not shown, not even their hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Users {
    /// Reads Apache's `htpasswd` format with `{SHA}` hashes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, hash) = line.split_once(':').ok_or("a line is not of the form user:hash")?;
            let hash =
                hash.strip_prefix("{SHA}").ok_or(format!("{name}: only {{SHA}} hashes are supported"))?;
            let hash = STANDARD.decode(hash).map_err(|_| format!("{name}: the hash is not Base64"))?;
            if name.is_empty() || hash.len() != digest::SHA1_OUTPUT_LEN {
                return Err(format!("{name}: the name is empty or the hash has the wrong length"));
            }
            if users.insert(name.into(), hash.into()).is_some() {
                return Err(format!("{name} stands there twice"));
            }
        }
        Ok(Self(users))
    }

    fn verify(&self, name: &str, password: &str) -> bool {
        let given = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        self.0.get(name).is_some_and(|known| verify_slices_are_equal(known, given.as_ref()).is_ok())
    }

    /// Checks an `authorization` header; gives the user's name.
    pub fn check(&self, header: Option<&str>) -> Result<String, BasicFailure> {
        let header = header.ok_or(BasicFailure::Missing)?;
        let scheme = header.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case("basic "));
        scheme.ok_or(BasicFailure::Scheme)?;
        let plain = STANDARD.decode(header[6..].trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.ok_or(BasicFailure::Format)?;
        let (name, password) = plain.split_once(':').ok_or(BasicFailure::Format)?;
        if self.verify(name, password) { Ok(name.to_owned()) } else { Err(BasicFailure::Credentials) }
    }
}

/// Why a user is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BasicFailure {
    /// No header.
    #[error("User authentication failed. Missing username and password.")]
    Missing,
    /// Another scheme.
    #[error("User authentication failed. Expected 'Basic' authentication scheme.")]
    Scheme,
    /// Not a name and a password.
    #[error("User authentication failed. Invalid basic credential format.")]
    Format,
    /// No such user, or not the password.
    #[error("User authentication failed. Invalid username/password combination.")]
    Credentials,
}

/// `ApiKeyAuth`; a part that is `None` is the other level's.
#[derive(Debug, Default)]
pub struct ApiKeys {
    /// Clients, by their keys.
    pub credentials: Option<Credentials>,
    /// Where keys are looked for, in order.
    pub sources: Option<Box<[KeySource]>>,
    /// The only clients that may pass; empty: all.
    pub allowed_clients: Box<[Arc<str>]>,
    /// What goes on to the upstream.
    pub forwarding: Option<Forwarding>,
}

/// Clients, by their keys.
#[derive(Default)]
pub struct Credentials(pub HashMap<Box<str>, Arc<str>>);

impl std::fmt::Debug for Credentials {
    /// Keys are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

/// `Forwarding`
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    /// The header that tells the client's name.
    pub header: Option<http::HeaderName>,
    /// Whether the key is taken out.
    pub hide_credentials: bool,
}

/// Where a key may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a header, for `authorization` behind `Bearer `.
    Header(HeaderKey),
    /// In a query parameter.
    Query(Box<str>),
    /// In a cookie.
    Cookie(Box<str>),
}

/// What becomes of a request with, or without, a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// It comes from this client.
    Client(Arc<str>),
    /// It has no key.
    Missing,
    /// Nobody has its key.
    Unknown,
    /// The client may not come here.
    Forbidden,
}

impl KeySource {
    fn find(&self, head: &RequestHead<'_>) -> Option<String> {
        let value = match self {
            Self::Header(key) => {
                let value = String::from_utf8(head.get(key)?.into_owned()).ok()?;
                let bearer = *key == HeaderKey::Name(http::header::AUTHORIZATION);
                match value.strip_prefix("Bearer ") {
                    Some(key) if bearer => key.to_owned(),
                    _ => value,
                }
            }
            Self::Query(name) => query_value(head.query(), name)?.into_owned(),
            Self::Cookie(name) => cookie(head, name)?.to_owned(),
        };
        (!value.is_empty()).then_some(value)
    }
}

impl ApiKeys {
    /// Judges a request by a route's configuration and the filter's own.
    pub fn judge(route: Option<&Self>, own: &Self, head: &RequestHead<'_>) -> KeyVerdict {
        let sources = route.and_then(|route| route.sources.as_ref()).or(own.sources.as_ref());
        let credentials = route.and_then(|route| route.credentials.as_ref()).or(own.credentials.as_ref());
        let key = sources.into_iter().flatten().find_map(|source| source.find(head));
        let Some(key) = key else { return KeyVerdict::Missing };
        let Some(client) = credentials.and_then(|known| known.0.get(&*key)) else {
            return KeyVerdict::Unknown;
        };
        let allowed = route.map_or(&[][..], |route| &route.allowed_clients);
        if allowed.is_empty() || allowed.contains(client) {
            KeyVerdict::Client(client.clone())
        } else {
            KeyVerdict::Forbidden
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_checked() {
        // `htpasswd -s`, for "secret".
        let users = Users::parse("# users\nann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
        let header = |plain: &str| format!("Basic {}", STANDARD.encode(plain));
        assert_eq!(users.check(Some(&header("ann:secret"))), Ok("ann".to_owned()));
        assert_eq!(users.check(Some(&header("ann:other"))), Err(BasicFailure::Credentials));
        assert_eq!(users.check(Some(&header("bob:secret"))), Err(BasicFailure::Credentials));
        assert_eq!(users.check(Some(&header("ann"))), Err(BasicFailure::Format));
        assert_eq!(users.check(Some("Bearer x")), Err(BasicFailure::Scheme));
        assert_eq!(users.check(Some("Basic")), Err(BasicFailure::Scheme));
        assert_eq!(users.check(None), Err(BasicFailure::Missing));
        assert!(Users::parse("ann:plain").is_err() && Users::parse("ann").is_err());
    }

    #[test]
    fn keys_name_clients() {
        let keys = |pairs: &[(&str, &str)]| {
            Some(Credentials(pairs.iter().map(|(key, client)| ((*key).into(), (*client).into())).collect()))
        };
        let own = ApiKeys {
            credentials: keys(&[("k1", "one"), ("k2", "two")]),
            sources: Some(Box::new([
                KeySource::Header(HeaderKey::parse("authorization").unwrap()),
                KeySource::Query("key".into()),
            ])),
            ..ApiKeys::default()
        };
        let route = ApiKeys { allowed_clients: Box::new(["one".into()]), ..ApiKeys::default() };
        let judge = |route, path, authorization: &'static str| {
            let mut headers = http::HeaderMap::new();
            if !authorization.is_empty() {
                let value = http::HeaderValue::from_static(authorization);
                headers.insert(http::header::AUTHORIZATION, value);
            }
            let head = RequestHead {
                method: "GET",
                scheme: "http",
                authority: "a",
                path,
                protocol: None,
                headers: &headers,
            };
            ApiKeys::judge(route, &own, &head)
        };
        assert_eq!(judge(None, "/", "Bearer k1"), KeyVerdict::Client("one".into()));
        assert_eq!(judge(None, "/?key=k2", ""), KeyVerdict::Client("two".into()));
        assert_eq!(judge(None, "/", ""), KeyVerdict::Missing);
        assert_eq!(judge(None, "/", "Bearer k3"), KeyVerdict::Unknown);
        assert_eq!(judge(Some(&route), "/?key=k2", ""), KeyVerdict::Forbidden);
        assert_eq!(judge(Some(&route), "/?key=k1", ""), KeyVerdict::Client("one".into()));
    }
}
