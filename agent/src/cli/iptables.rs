//! Flags of `istio-iptables`, as Istio has them.

use std::path::PathBuf;

use agent_contract::ports;
use clap::Args;

/// Flags of `istio-iptables` and `istio-clean-iptables`.
#[derive(Clone, Debug, Args)]
pub struct IptablesArgs {
    /// Port of the outbound listener.
    #[arg(short = 'p', long, default_value = "15001", value_name = "PORT")]
    pub envoy_port: String,
    /// Port of the inbound listener.
    #[arg(short = 'z', long, default_value = "15006", value_name = "PORT")]
    pub inbound_capture_port: String,
    /// Port of inbound tunnels, never captured.
    #[arg(short = 'e', long, default_value = "15008", value_name = "PORT")]
    pub inbound_tunnel_port: String,
    /// Users of the proxy.
    #[arg(short = 'u', long, default_value = "1337", value_name = "UIDS")]
    pub proxy_uid: String,
    /// Groups of the proxy; as the users when empty.
    #[arg(short = 'g', long, default_value = "", value_name = "GIDS")]
    pub proxy_gid: String,
    /// REDIRECT, TPROXY or NONE.
    #[arg(short = 'm', long, default_value = "REDIRECT", value_name = "MODE")]
    pub istio_inbound_interception_mode: String,
    /// Inbound ports that are captured: `*`, a list, or none.
    #[arg(short = 'b', long, default_value = "", value_name = "PORTS")]
    pub istio_inbound_ports: String,
    /// Inbound ports that are not.
    #[arg(short = 'd', long, default_value = "", value_name = "PORTS")]
    pub istio_local_exclude_ports: String,
    /// Interfaces that are not captured.
    #[arg(short = 'c', long, default_value = "", value_name = "NAMES")]
    pub istio_exclude_interfaces: String,
    /// Outbound ranges that are captured: `*`, a list, or none.
    #[arg(short = 'i', long, default_value = "", value_name = "CIDRS")]
    pub istio_service_cidr: String,
    /// Outbound ranges that are not.
    #[arg(short = 'x', long, default_value = "", value_name = "CIDRS")]
    pub istio_service_exclude_cidr: String,
    /// Outbound ports that are captured whatever their address.
    #[arg(short = 'q', long, default_value = "", value_name = "PORTS")]
    pub istio_outbound_ports: String,
    /// Outbound ports that are not.
    #[arg(short = 'o', long, default_value = "", value_name = "PORTS")]
    pub istio_local_outbound_ports_exclude: String,
    /// Interfaces of virtual machines.
    #[arg(short = 'k', long, default_value = "", value_name = "NAMES")]
    pub kube_virt_interfaces: String,
    /// Mark of packets in TPROXY mode.
    #[arg(short = 't', long, default_value = "1337", value_name = "MARK")]
    pub istio_inbound_tproxy_mark: String,
    /// Routing table in TPROXY mode.
    #[arg(short = 'r', long, default_value = "133", value_name = "TABLE")]
    pub istio_inbound_tproxy_route_table: String,
    /// Print what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Capture DNS queries to the pod's name servers.
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub redirect_dns: bool,
    /// Capture DNS queries to any server.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true)]
    pub capture_all_dns: bool,
    /// Drop packets of connections that conntrack calls invalid.
    #[arg(long, env = "INVALID_DROP", num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub drop_invalid: bool,
    /// Make IPv6 rules even where the pod has no IPv6 address yet.
    #[arg(long, env = "ISTIO_DUAL_STACK", num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub dual_stack: bool,
    /// Groups whose outbound traffic is captured.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS", default_value = "*", value_name = "GIDS")]
    pub outbound_owner_groups: String,
    /// Groups whose outbound traffic is not.
    #[arg(long, env = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", default_value = "", value_name = "GIDS")]
    pub outbound_owner_groups_exclude: String,
    /// Do not touch the rules.
    #[arg(long)]
    pub skip_rule_apply: bool,
    /// Check that connections are captured; the exit code is 126 when they are not.
    #[arg(long)]
    pub run_validation: bool,
    /// The port that the check connects to.
    #[arg(long, default_value_t = ports::CAPTURE_PROBE, value_name = "PORT")]
    pub iptables_probe_port: u16,
    /// How long the check may take.
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    pub probe_timeout: String,
    /// Remove the rules and stop.
    #[arg(long)]
    pub cleanup_only: bool,
    /// Use nft.
    #[arg(long)]
    pub native_nftables: bool,
    /// `legacy` or `nft`: which iptables to use.
    #[arg(long, default_value = "", value_name = "KIND")]
    pub force_iptables_binary: String,
    /// The network namespace to work in.
    #[arg(long, value_name = "FILE")]
    pub network_namespace: Option<PathBuf>,
    /// Rules are always brought to the wanted state; kept for compatibility.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true)]
    pub reconcile: bool,
    /// As `--reconcile`.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true)]
    pub force_apply: bool,
    /// Kept for compatibility: nothing differs when a CNI plugin calls.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true)]
    pub cni_mode: bool,
}
