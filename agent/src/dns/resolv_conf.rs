//! resolv.conf: name servers and search domains.

use std::net::{IpAddr, SocketAddr};

/// What is read of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order of the file.
    pub servers: Vec<SocketAddr>,
    /// In lower case, without the last dot.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text. Lines that are not understood are passed over, as every resolver does.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) cannot be dialled by address alone.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    conf.servers.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    conf.search = words.map(|w| w.trim_end_matches('.').to_ascii_lowercase()).collect();
                }
                _ => {}
            }
        }
        conf
    }

    /// The same without a server that would be asked in a circle.
    pub fn without(mut self, own: &[SocketAddr]) -> Self {
        self.servers.retain(|server| !own.contains(server));
        self
    }
}
