//! `PeerAuthentication`: whether a workload requires mutual TLS.

use std::collections::BTreeMap;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::WorkloadSelector;

message! {
    /// `security.istio.io/PeerAuthentication`.
    pub struct PeerAuthentication {
        selector: Option<WorkloadSelector>,
        mtls: Option<MutualTls>,
        /// By port of the workload (not of its service).
        port_level_mtls: BTreeMap<u16, MutualTls>,
    }
}

message! {
    /// The mode.
    pub struct MutualTls {
        mode: MutualTlsMode,
    }
}

enumeration! {
    /// What is accepted.
    pub enum MutualTlsMode {
        /// As the wider policy says; PERMISSIVE at the end.
        #[default]
        Unset = "UNSET" = 0,
        Disable = "DISABLE" = 1,
        Permissive = "PERMISSIVE" = 2,
        Strict = "STRICT" = 3,
    }
}

impl Spec for PeerAuthentication {
    const KIND: Kind = Kind::PeerAuthentication;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        check::selector("selector", self.selector.as_ref(), cx);
        let selected = self.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
        if !self.port_level_mtls.is_empty() && !selected {
            cx.error_at("portLevelMtls", "needs a selector: ports belong to workloads");
        }
        for port in self.port_level_mtls.keys() {
            cx.field("portLevelMtls", |cx| cx.key(&port.to_string(), |cx| check::port(*port, cx)));
        }
    }
}
