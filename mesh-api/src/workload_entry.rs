//! `WorkloadEntry`: one workload that is not a pod; also the endpoint of a ServiceEntry.

use std::collections::BTreeMap;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};

message! {
    /// `networking.istio.io/WorkloadEntry`.
    pub struct WorkloadEntry {
        /// An IP, a DNS name, or `unix://path`.
        address: String,
        /// Port name to number.
        ports: BTreeMap<String, u16>,
        labels: BTreeMap<String, String>,
        network: String,
        /// `region/zone/subzone`.
        locality: String,
        weight: u32,
        service_account: String,
    }
}

impl Spec for WorkloadEntry {
    const KIND: Kind = Kind::WorkloadEntry;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        if self.address.is_empty() && self.network.is_empty() {
            cx.error_at("address", "must be set (only an entry with a network may go without)");
        }
        self.check(cx);
    }
}

impl WorkloadEntry {
    /// What holds for every workload entry, standing alone or as an endpoint.
    pub(crate) fn check(&self, cx: &mut Cx) {
        if let Some(path) = self.address.strip_prefix("unix://") {
            if !path.starts_with('/') && !path.starts_with('@') {
                cx.error_at("address", "a Unix socket needs an absolute path");
            }
            if !self.ports.is_empty() {
                cx.error_at("ports", "a Unix socket has no ports");
            }
        } else if !self.address.is_empty() && !check::is_ip(&self.address) {
            cx.field("address", |cx| check::fqdn(&self.address, cx));
        }
        for (name, port) in &self.ports {
            cx.field("ports", |cx| cx.key(name, |cx| check::port(*port, cx)));
        }
        check::labels("labels", &self.labels, cx);
    }
}
