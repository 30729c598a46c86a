//! The listener that captured outbound connections come to.

use saild_model::{InterceptionMode, Mesh, ProxyView};

use super::{Chain, ChainMatch, Class, Common, Direction, Filters, ListenerInputs};
use crate::{naming, outbound_policy};

pub(super) fn inputs(mesh: &Mesh, proxy: &ProxyView, common: &Common) -> ListenerInputs {
    let port = mesh.settings().proxy_listen_port;
    let mut listener = ListenerInputs::new(
        naming::VIRTUAL_OUTBOUND.to_owned(),
        "0.0.0.0",
        port,
        Direction::Outbound,
        common,
    );
    listener.use_original_dst = true;
    listener.transparent = proxy.interception_mode == InterceptionMode::Tproxy;
    // Who connects to this port itself would be sent back here for ever.
    listener.chains = vec![
        chain("virtualOutbound-blackhole", Some(port), naming::BLACK_HOLE, common),
        chain(
            "virtualOutbound-catchall-tcp",
            None,
            &outbound_policy::cluster(mesh, &mesh.scope(proxy)),
            common,
        ),
    ];
    listener
}

/// A chain that carries everything to one cluster.
pub(super) fn chain(name: &str, port: Option<u16>, cluster: &str, common: &Common) -> Chain {
    Chain {
        name: name.to_owned(),
        matches: ChainMatch { port, ..ChainMatch::default() },
        tls: None,
        filters: Filters::Tcp(Box::new(common.tcp(
            Class::SidecarOutbound,
            cluster,
            vec![(cluster.to_owned(), 1)],
        ))),
    }
}
