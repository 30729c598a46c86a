//! The table of kinds: group, versions and names.

/// A kind of Istio's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "variant names are the kinds")]
pub enum Kind {
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    Sidecar,
    WorkloadEntry,
    WorkloadGroup,
    ProxyConfig,
    EnvoyFilter,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
}

/// What the API server knows of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// `VirtualService`.
    pub name: &'static str,
    /// `networking.istio.io`.
    pub group: &'static str,
    /// Served versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// `virtualservices`.
    pub plural: &'static str,
    /// `vs`, where there are some.
    pub short_names: &'static [&'static str],
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const ALL_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::Gateway,
        Self::ServiceEntry,
        Self::Sidecar,
        Self::WorkloadEntry,
        Self::WorkloadGroup,
        Self::ProxyConfig,
        Self::EnvoyFilter,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::Telemetry,
        Self::WasmPlugin,
    ];

    /// The row of this kind.
    pub const fn info(self) -> KindInfo {
        match self {
            Self::VirtualService => {
                row("VirtualService", NETWORKING, ALL_VERSIONS, "virtualservices", &["vs"])
            }
            Self::DestinationRule => {
                row("DestinationRule", NETWORKING, ALL_VERSIONS, "destinationrules", &["dr"])
            }
            Self::Gateway => row("Gateway", NETWORKING, ALL_VERSIONS, "gateways", &["gw"]),
            Self::ServiceEntry => row("ServiceEntry", NETWORKING, ALL_VERSIONS, "serviceentries", &["se"]),
            Self::Sidecar => row("Sidecar", NETWORKING, ALL_VERSIONS, "sidecars", &[]),
            Self::WorkloadEntry => row("WorkloadEntry", NETWORKING, ALL_VERSIONS, "workloadentries", &["we"]),
            Self::WorkloadGroup => row("WorkloadGroup", NETWORKING, ALL_VERSIONS, "workloadgroups", &["wg"]),
            Self::ProxyConfig => row("ProxyConfig", NETWORKING, &["v1beta1"], "proxyconfigs", &[]),
            Self::EnvoyFilter => row("EnvoyFilter", NETWORKING, &["v1alpha3"], "envoyfilters", &[]),
            Self::PeerAuthentication => {
                row("PeerAuthentication", SECURITY, &["v1", "v1beta1"], "peerauthentications", &["pa"])
            }
            Self::RequestAuthentication => {
                row("RequestAuthentication", SECURITY, &["v1", "v1beta1"], "requestauthentications", &["ra"])
            }
            Self::AuthorizationPolicy => {
                row("AuthorizationPolicy", SECURITY, &["v1", "v1beta1"], "authorizationpolicies", &["ap"])
            }
            Self::Telemetry => {
                row("Telemetry", "telemetry.istio.io", &["v1", "v1alpha1"], "telemetries", &["telemetry"])
            }
            Self::WasmPlugin => row("WasmPlugin", "extensions.istio.io", &["v1alpha1"], "wasmplugins", &[]),
        }
    }

    /// `VirtualService`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The kind of this name in this group.
    pub fn find(group: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.info().group == group && kind.name() == name)
    }

    /// The kind of a kind name, plural or short name in any spelling (`vs`, `virtualservice`, `VirtualServices`).
    pub fn by_resource_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let info = kind.info();
            let spellings = [info.name, info.plural];
            spellings.iter().chain(info.short_names).any(|s| s.eq_ignore_ascii_case(name))
        })
    }

    /// Whether a group is one of Istio's that this table has kinds of.
    pub fn is_own_group(group: &str) -> bool {
        Self::ALL.into_iter().any(|kind| kind.info().group == group)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const fn row(
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    short_names: &'static [&'static str],
) -> KindInfo {
    KindInfo { name, group, versions, plural, short_names }
}
