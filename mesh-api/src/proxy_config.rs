//! The kind `ProxyConfig`: settings of proxies by namespace or workload, taken at injection.
//!
//! [`crate::mesh_config::ProxyConfig`] is the other thing of this name, with all settings of a proxy.

use std::collections::BTreeMap;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::WorkloadSelector;

message! {
    /// `networking.istio.io/ProxyConfig`.
    pub struct ProxyConfigResource {
        selector: Option<WorkloadSelector>,
        concurrency: Option<i32>,
        environment_variables: BTreeMap<String, String>,
        image: Option<ProxyImage>,
    }
}

message! {
    /// Which flavour of the image is used.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        image_type: String,
    }
}

impl Spec for ProxyConfigResource {
    const KIND: Kind = Kind::ProxyConfig;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        check::selector("selector", self.selector.as_ref(), cx);
        if self.concurrency.is_some_and(|n| n < 0) {
            cx.error_at("concurrency", "must not be negative");
        }
        cx.some("image", self.image.as_ref(), |cx, image| {
            if !matches!(image.image_type.as_str(), "" | "default" | "debug" | "distroless") {
                // A hub may have others.
                cx.warn_at("imageType", "is usually default, debug or distroless");
            }
        });
    }
}
