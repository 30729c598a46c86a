//! `istio-iptables` and `istio-clean-iptables`: what `capture` plans, applied with the kernel's own tools.

mod tools;
mod validate;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use agent_contract::agent_env::parse_duration;
use anyhow::Context as _;
use capture::{Flags, Plan};

use crate::cli::IptablesArgs;
use crate::config::node;
use crate::dns::ResolvConf;
use tools::Backend;

/// As Istio's init container: the pod is then repaired by the CNI's node agent.
const VALIDATION_FAILED: u8 = 126;

/// Applies the rules, checks them, or removes them, as the flags say.
pub(super) fn apply(args: &IptablesArgs) -> anyhow::Result<ExitCode> {
    if args.cleanup_only {
        return clean(args);
    }
    enter(args.network_namespace.as_deref())?;
    let plan = capture::plan(&flags(args)?.validate()?);
    if args.dry_run {
        print(&plan, args);
        return Ok(ExitCode::SUCCESS);
    }
    if !args.skip_rule_apply {
        tools::apply(Backend::choose(args)?, &plan)?;
        tracing::info!("capture rules are in place");
    }
    if args.run_validation {
        let timeout = parse_duration(&args.probe_timeout)
            .with_context(|| format!("--probe-timeout {:?} is not a duration, as 5s", args.probe_timeout))?;
        if let Err(error) = validate::run(args, timeout) {
            eprintln!("sail-agent: connections are not captured: {error:#}");
            return Ok(ExitCode::from(VALIDATION_FAILED));
        }
        tracing::info!("connections are captured");
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the rules.
pub(super) fn clean(args: &IptablesArgs) -> anyhow::Result<ExitCode> {
    enter(args.network_namespace.as_deref())?;
    let plan = capture::plan(&flags(args)?.validate()?);
    tools::remove(Backend::choose(args)?, &plan)?;
    tracing::info!("capture rules are gone");
    Ok(ExitCode::SUCCESS)
}

fn flags(args: &IptablesArgs) -> anyhow::Result<Flags> {
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let dns_servers = ResolvConf::parse(&resolv_conf).servers.iter().map(std::net::SocketAddr::ip).collect();
    let args = args.clone();
    Ok(Flags {
        envoy_port: args.envoy_port,
        inbound_capture_port: args.inbound_capture_port,
        inbound_tunnel_port: args.inbound_tunnel_port,
        proxy_uid: args.proxy_uid,
        proxy_gid: args.proxy_gid,
        istio_inbound_interception_mode: args.istio_inbound_interception_mode,
        istio_inbound_tproxy_mark: args.istio_inbound_tproxy_mark,
        istio_inbound_tproxy_route_table: args.istio_inbound_tproxy_route_table,
        istio_inbound_ports: args.istio_inbound_ports,
        istio_local_exclude_ports: args.istio_local_exclude_ports,
        istio_exclude_interfaces: args.istio_exclude_interfaces,
        istio_service_cidr: args.istio_service_cidr,
        istio_service_exclude_cidr: args.istio_service_exclude_cidr,
        istio_outbound_ports: args.istio_outbound_ports,
        istio_local_outbound_ports_exclude: args.istio_local_outbound_ports_exclude,
        kube_virt_interfaces: args.kube_virt_interfaces,
        outbound_owner_groups: args.outbound_owner_groups,
        outbound_owner_groups_exclude: args.outbound_owner_groups_exclude,
        redirect_dns: args.redirect_dns,
        capture_all_dns: args.capture_all_dns,
        dns_servers,
        drop_invalid: args.drop_invalid,
        ipv6: args.dual_stack || node::addresses(None).iter().any(IpAddr::is_ipv6),
    })
}

/// Commands started from here on run in that namespace as well.
fn enter(namespace: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = namespace else { return Ok(()) };
    let file = std::fs::File::open(path)
        .with_context(|| format!("--network-namespace: opening {}", path.display()))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("--network-namespace: entering {} (this needs SYS_ADMIN)", path.display()))
}

fn print(plan: &Plan, args: &IptablesArgs) {
    if args.native_nftables {
        print!("{}", capture::render_nft(plan));
        return;
    }
    print!("{}", capture::render_iptables_restore(&plan.v4));
    if let Some(v6) = &plan.v6 {
        print!("# IPv6\n{}", capture::render_iptables_restore(v6));
    }
}
