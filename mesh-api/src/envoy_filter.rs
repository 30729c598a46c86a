//! `EnvoyFilter`: patches of the Envoy configuration that the control plane makes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// `networking.istio.io/EnvoyFilter`.
    pub struct EnvoyFilter {
        workload_selector: Option<WorkloadSelector>,
        target_refs: Vec<PolicyTargetReference>,
        config_patches: Vec<ConfigPatch>,
        priority: i32,
    }
}

message! {
    /// `EnvoyConfigObjectPatch`.
    pub struct ConfigPatch {
        apply_to: ApplyTo,
        r#match: Option<ConfigMatch>,
        patch: Option<Patch>,
    }
}

enumeration! {
    /// What kind of configuration is patched.
    pub enum ApplyTo {
        #[default]
        Invalid = "INVALID" = 0,
        Listener = "LISTENER" = 1,
        FilterChain = "FILTER_CHAIN" = 2,
        NetworkFilter = "NETWORK_FILTER" = 3,
        HttpFilter = "HTTP_FILTER" = 4,
        RouteConfiguration = "ROUTE_CONFIGURATION" = 5,
        VirtualHost = "VIRTUAL_HOST" = 6,
        HttpRoute = "HTTP_ROUTE" = 7,
        Cluster = "CLUSTER" = 8,
        ExtensionConfig = "EXTENSION_CONFIG" = 9,
        Bootstrap = "BOOTSTRAP" = 10,
        ListenerFilter = "LISTENER_FILTER" = 11,
    }
}

enumeration! {
    /// Which side of a proxy is patched.
    pub enum PatchContext {
        #[default]
        Any = "ANY" = 0,
        SidecarInbound = "SIDECAR_INBOUND" = 1,
        SidecarOutbound = "SIDECAR_OUTBOUND" = 2,
        Gateway = "GATEWAY" = 3,
        Waypoint = "WAYPOINT" = 4,
    }
}

message! {
    /// `EnvoyConfigObjectMatch`.
    pub struct ConfigMatch {
        context: PatchContext,
        proxy: Option<ProxyMatch>,
        listener: Option<ListenerMatch>,
        route_configuration: Option<RouteConfigurationMatch>,
        cluster: Option<ClusterMatch>,
        waypoint: Option<WaypointMatch>,
    }
}

message! {
    /// Proxies by version (RE2) and metadata.
    pub struct ProxyMatch {
        proxy_version: String,
        metadata: BTreeMap<String, String>,
    }
}

message! {
    /// Clusters.
    pub struct ClusterMatch {
        port_number: u32,
        service: String,
        subset: String,
        name: String,
    }
}

message! {
    /// Route configurations.
    pub struct RouteConfigurationMatch {
        port_number: u32,
        port_name: String,
        gateway: String,
        vhost: Option<VirtualHostMatch>,
        name: String,
    }
}

message! {
    /// Virtual hosts.
    pub struct VirtualHostMatch {
        name: String,
        domain_name: String,
        route: Option<RouteMatch>,
    }
}

message! {
    /// Routes.
    pub struct RouteMatch {
        name: String,
        action: RouteAction,
    }
}

enumeration! {
    /// What a route does.
    pub enum RouteAction {
        #[default]
        Any = "ANY" = 0,
        Route = "ROUTE" = 1,
        Redirect = "REDIRECT" = 2,
        DirectResponse = "DIRECT_RESPONSE" = 3,
    }
}

message! {
    /// Listeners.
    pub struct ListenerMatch {
        port_number: u32,
        port_name: String,
        filter_chain: Option<FilterChainMatch>,
        listener_filter: String,
        name: String,
    }
}

message! {
    /// Filter chains.
    pub struct FilterChainMatch {
        name: String,
        sni: String,
        transport_protocol: String,
        application_protocols: String,
        filter: Option<FilterMatch>,
        destination_port: u32,
        transport_socket: Option<TransportSocketMatch>,
    }
}

message! {
    /// The transport socket of a filter chain.
    pub struct TransportSocketMatch {
        name: String,
    }
}

message! {
    /// A network filter.
    pub struct FilterMatch {
        name: String,
        sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// A filter within a network filter.
    pub struct SubFilterMatch {
        name: String,
    }
}

message! {
    /// Parts of a waypoint.
    pub struct WaypointMatch {
        port_number: u32,
        filter: Option<FilterMatch>,
        route: Option<RouteMatch>,
    }
}

message! {
    /// What is done with what matched.
    pub struct Patch {
        operation: PatchOperation,
        value: Option<Value>,
        filter_class: FilterClass,
    }
}

enumeration! {
    /// How the value is applied.
    pub enum PatchOperation {
        #[default]
        Invalid = "INVALID" = 0,
        Merge = "MERGE" = 1,
        Add = "ADD" = 2,
        Remove = "REMOVE" = 3,
        InsertBefore = "INSERT_BEFORE" = 4,
        InsertAfter = "INSERT_AFTER" = 5,
        InsertFirst = "INSERT_FIRST" = 6,
        Replace = "REPLACE" = 7,
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST" = 8,
    }
}

enumeration! {
    /// Where in the order of filters an added one belongs.
    pub enum FilterClass {
        #[default]
        Unspecified = "UNSPECIFIED" = 0,
        Authn = "AUTHN" = 1,
        Authz = "AUTHZ" = 2,
        Stats = "STATS" = 3,
    }
}

impl Spec for EnvoyFilter {
    const KIND: Kind = Kind::EnvoyFilter;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        check::selector("workloadSelector", self.workload_selector.as_ref(), cx);
        check::targets(self.workload_selector.as_ref(), None, &self.target_refs, cx);
        if self.config_patches.is_empty() {
            cx.warn_at("configPatches", "is empty: the filter has no effect");
        }
        cx.each("configPatches", &self.config_patches, patch);
    }
}

fn patch(cx: &mut Cx, patch: &ConfigPatch) {
    if patch.apply_to == ApplyTo::Invalid {
        cx.error_at("applyTo", "must be set");
    }
    cx.some("match", patch.r#match.as_ref(), |cx, matcher| {
        let objects =
            [&matcher.listener.is_some(), &matcher.route_configuration.is_some(), &matcher.cluster.is_some()];
        if objects.into_iter().filter(|set| **set).count() > 1 {
            cx.error("only one of listener, routeConfiguration and cluster may be set");
        }
        cx.some("proxy", matcher.proxy.as_ref(), |cx, proxy| {
            if !proxy.proxy_version.is_empty() {
                cx.field("proxyVersion", |cx| check::regex(&proxy.proxy_version, cx));
            }
        });
    });
    let Some(change) = &patch.patch else {
        cx.error_at("patch", "must be set");
        return;
    };
    cx.field("patch", |cx| {
        let removes = change.operation == PatchOperation::Remove;
        match (&change.value, removes) {
            (_, _) if change.operation == PatchOperation::Invalid => cx.error_at("operation", "must be set"),
            (None, false) => cx.error_at("value", "must be set unless the operation is REMOVE"),
            (Some(value), _) if !value.is_object() => cx.error_at("value", "must be an object"),
            _ => {}
        }
    });
}
