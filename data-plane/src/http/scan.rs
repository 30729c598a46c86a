//! One look over a message's headers, so that the many that are usually absent need not be looked up one by one.

use http::HeaderMap;

/// Which headers a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) connection: bool,
    pub(crate) cookie: bool,
    pub(crate) keep_alive: bool,
    pub(crate) proxy_connection: bool,
    pub(crate) transfer_encoding: bool,
    pub(crate) upgrade: bool,
    pub(crate) te: bool,
    pub(crate) expect: bool,
    /// Any that begins with `x-envoy-`, or `grpc-timeout`.
    pub(crate) control: bool,
    pub(crate) forwarded_for: bool,
    pub(crate) forwarded_proto: bool,
    pub(crate) client_cert: bool,
    pub(crate) request_id: bool,
}

impl Present {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            let name = name.as_str();
            match name.as_bytes()[0] {
                b'c' if name == "connection" => present.connection = true,
                b'c' if name == "cookie" => present.cookie = true,
                b'u' if name == "upgrade" => present.upgrade = true,
                b'k' if name == "keep-alive" => present.keep_alive = true,
                b'p' if name == "proxy-connection" => present.proxy_connection = true,
                b't' if name == "te" => present.te = true,
                b't' if name == "transfer-encoding" => present.transfer_encoding = true,
                b'e' if name == "expect" => present.expect = true,
                b'g' if name == "grpc-timeout" => present.control = true,
                b'x' => present.note_extension(name),
                _ => {}
            }
        }
        present
    }

    /// Whether any header speaks of one connection alone.
    pub(crate) fn hop(self) -> bool {
        self.connection || self.keep_alive || self.proxy_connection || self.transfer_encoding || self.upgrade
    }

    fn note_extension(&mut self, name: &str) {
        match name {
            "x-request-id" => self.request_id = true,
            "x-forwarded-for" => self.forwarded_for = true,
            "x-forwarded-proto" => self.forwarded_proto = true,
            "x-forwarded-client-cert" => self.client_cert = true,
            name => self.control |= name.starts_with("x-envoy-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overlooked() {
        let check = |name: &'static str, expect: Present| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static("x"),
            )]);
            assert_eq!(Present::of(&headers), expect, "{name}");
        };
        check("accept", Present::default());
        check("keep-alive", Present { keep_alive: true, ..Present::default() });
        check("x-envoy-max-retries", Present { control: true, ..Present::default() });
        check("x-forwarded-client-cert", Present { client_cert: true, ..Present::default() });
    }
}
