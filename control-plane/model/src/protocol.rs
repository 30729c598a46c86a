//! The protocol of a port: declared by `appProtocol` or by the port's name, else found out from the bytes.

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in plain text, or in TLS that the proxy originates.
    Http2,
    /// HTTP in TLS that the proxy does not open.
    Https,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// TLS that the proxy does not open.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams; proxies ignore them.
    Udp,
    /// MongoDB.
    Mongo,
    /// MySQL.
    MySql,
    /// Redis.
    Redis,
    /// Nothing is declared: sniffed.
    #[default]
    Auto,
}

impl Protocol {
    /// The protocol that a word names, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            _ => return None,
        })
    }

    /// The protocol of a Kubernetes Service's port.
    pub fn of_service_port(
        number: u16,
        name: Option<&str>,
        app_protocol: Option<&str>,
        transport: Option<&str>,
    ) -> Self {
        if transport == Some("UDP") {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(word) => {
                if let Some(protocol) = Self::parse(word) {
                    return protocol;
                }
            }
            None => {}
        }
        let name = name.unwrap_or_default().to_ascii_lowercase();
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        let prefix = name.split('-').next().unwrap_or_default();
        if let Some(protocol) = Self::parse(prefix) {
            return protocol;
        }
        match number {
            // The server speaks first here, which sniffing would wait for in vain.
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Auto,
        }
    }

    /// The proxy reads requests.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// HTTP/2, as declared.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// gRPC of either form.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// TLS that the proxy passes on, routed by SNI.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// The proxy carries bytes.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Https | Self::Mongo | Self::MySql | Self::Redis)
    }

    /// Found out from the bytes.
    pub fn is_auto(self) -> bool {
        self == Self::Auto
    }

    /// The word for it in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Https => "HTTPS",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Mongo => "Mongo",
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
            Self::Auto => "Auto",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_of_a_service_port() {
        let check = |number, name: Option<&str>, app: Option<&str>, expect| {
            assert_eq!(Protocol::of_service_port(number, name, app, Some("TCP")), expect, "{name:?} {app:?}");
        };
        check(80, Some("http"), None, Protocol::Http);
        check(80, Some("HTTP2-x"), None, Protocol::Http2);
        check(80, Some("grpc-web-x"), None, Protocol::GrpcWeb);
        check(80, Some("grpc-foo"), None, Protocol::Grpc);
        check(80, Some("httpfoo"), None, Protocol::Auto);
        check(80, None, None, Protocol::Auto);
        check(3306, None, None, Protocol::Tcp);
        check(80, Some("tcp"), Some("kubernetes.io/h2c"), Protocol::Http2);
        check(80, Some("tcp"), Some("grpc"), Protocol::Grpc);
        assert_eq!(Protocol::of_service_port(53, Some("http"), None, Some("UDP")), Protocol::Udp);
    }
}
