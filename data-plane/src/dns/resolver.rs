//! Resolvers, one for each way in which clusters ask.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, NameServerConfigGroup, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{ResolveError, TokioResolver};
use sail_proxy_config::cluster::{DnsCluster, DnsFamily};

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The lookup failed.
    #[error("cannot resolve {name}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// There are no servers to ask.
    #[error("the system's resolver configuration cannot be read")]
    System(#[source] ResolveError),
    /// It has none.
    #[error("the name has no address")]
    Empty,
}

type Key = (u8, bool, Vec<SocketAddr>);

/// Resolvers by family, transport and servers.
#[derive(Default)]
pub(super) struct Resolvers(RefCell<BTreeMap<Key, Rc<TokioResolver>>>);

impl Resolvers {
    /// A name's addresses, and until when they hold.
    pub(super) async fn lookup(
        &self,
        config: &DnsCluster,
        name: &str,
    ) -> Result<(Vec<IpAddr>, Instant), Error> {
        let resolver = self.get(config)?;
        let found = resolver
            .lookup_ip(name)
            .await
            .map_err(|source| Error::Lookup { name: name.to_owned(), source })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() {
            return Err(Error::Empty);
        }
        // Answers come in turns; hosts in order do not look changed when they are not.
        if !matches!(config.family, DnsFamily::All) {
            addresses.sort();
        }
        Ok((addresses, found.valid_until()))
    }

    fn get(&self, config: &DnsCluster) -> Result<Rc<TokioResolver>, Error> {
        let servers: Vec<SocketAddr> =
            config.resolvers.iter().filter_map(|address| address.socket_addr()).collect();
        let key = (config.family as u8, config.use_tcp, servers);
        if let Some(resolver) = self.0.borrow().get(&key) {
            return Ok(resolver.clone());
        }
        let mut builder = if key.2.is_empty() {
            TokioResolver::builder_tokio().map_err(Error::System)?
        } else {
            let server = |address: &SocketAddr| {
                NameServerConfig::new(*address, if config.use_tcp { Protocol::Tcp } else { Protocol::Udp })
            };
            let servers: Vec<NameServerConfig> = key.2.iter().map(server).collect();
            let group = NameServerConfigGroup::from(servers);
            let config = ResolverConfig::from_parts(None, Vec::new(), group);
            TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
        };
        let options = builder.options_mut();
        options.ip_strategy = match config.family {
            DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
            DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
            DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
            DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
            DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
        };
        // Clusters refresh at their own rate; a cache would only hide changes.
        options.cache_size = 0;
        let resolver = Rc::new(builder.build());
        self.0.borrow_mut().insert(key, resolver.clone());
        Ok(resolver)
    }
}
