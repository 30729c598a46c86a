//! The flags of `istio-iptables`, raw ([`Flags`]) and validated ([`Capture`]).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The flags as written: comma-separated lists stay text. The defaults are Istio's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Flags {
    /// `-p, --envoy-port`
    pub envoy_port: String,
    /// `-z, --inbound-capture-port`
    pub inbound_capture_port: String,
    /// `-e, --inbound-tunnel-port`
    pub inbound_tunnel_port: String,
    /// `-u, --proxy-uid`
    pub proxy_uid: String,
    /// `-g, --proxy-gid`; empty means the same as the uid.
    pub proxy_gid: String,
    /// `-m, --istio-inbound-interception-mode`
    pub istio_inbound_interception_mode: String,
    /// `-t, --istio-inbound-tproxy-mark`
    pub istio_inbound_tproxy_mark: String,
    /// `-r, --istio-inbound-tproxy-route-table`
    pub istio_inbound_tproxy_route_table: String,
    /// `-b, --istio-inbound-ports`: `*`, a list, or empty for none.
    pub istio_inbound_ports: String,
    /// `-d, --istio-local-exclude-ports`
    pub istio_local_exclude_ports: String,
    /// `-c, --istio-exclude-interfaces`
    pub istio_exclude_interfaces: String,
    /// `-i, --istio-service-cidr`: `*` or a list.
    pub istio_service_cidr: String,
    /// `-x, --istio-service-exclude-cidr`
    pub istio_service_exclude_cidr: String,
    /// `-q, --istio-outbound-ports`
    pub istio_outbound_ports: String,
    /// `-o, --istio-local-outbound-ports-exclude`
    pub istio_local_outbound_ports_exclude: String,
    /// `-k, --kube-virt-interfaces`
    pub kube_virt_interfaces: String,
    /// Variable `ISTIO_OUTBOUND_OWNER_GROUPS`
    pub outbound_owner_groups: String,
    /// Variable `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`
    pub outbound_owner_groups_exclude: String,
    /// `--redirect-dns`
    pub redirect_dns: bool,
    /// `--capture-all-dns`
    pub capture_all_dns: bool,
    /// Name servers of the pod's resolv.conf, whose queries are captured with `--redirect-dns`.
    pub dns_servers: Vec<IpAddr>,
    /// `--drop-invalid`
    pub drop_invalid: bool,
    /// Whether the pod has an IPv6 address (or `--dual-stack`), so that IPv6 rules are made too.
    pub ipv6: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            envoy_port: "15001".into(),
            inbound_capture_port: "15006".into(),
            inbound_tunnel_port: "15008".into(),
            proxy_uid: "1337".into(),
            proxy_gid: String::new(),
            istio_inbound_interception_mode: "REDIRECT".into(),
            istio_inbound_tproxy_mark: "1337".into(),
            istio_inbound_tproxy_route_table: "133".into(),
            istio_inbound_ports: String::new(),
            istio_local_exclude_ports: String::new(),
            istio_exclude_interfaces: String::new(),
            istio_service_cidr: String::new(),
            istio_service_exclude_cidr: String::new(),
            istio_outbound_ports: String::new(),
            istio_local_outbound_ports_exclude: String::new(),
            kube_virt_interfaces: String::new(),
            outbound_owner_groups: String::new(),
            outbound_owner_groups_exclude: String::new(),
            redirect_dns: false,
            capture_all_dns: false,
            dns_servers: Vec::new(),
            drop_invalid: false,
            ipv6: false,
        }
    }
}

/// How inbound connections reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By rewriting the destination.
    Redirect,
    /// By a transparent socket, which keeps source and destination.
    Tproxy {
        /// Mark of packets for the proxy.
        mark: u32,
        /// Routing table that delivers marked packets locally.
        route_table: u32,
    },
    /// Not at all.
    None,
}

/// Ports, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// These; may be none.
    Some(Vec<u16>),
}

/// Address ranges, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpRanges {
    /// Every address.
    All,
    /// These; may be none.
    Some(Vec<IpNet>),
}

/// Which DNS queries go to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsCapture {
    /// None.
    Off,
    /// All.
    All,
    /// Those to these servers.
    Servers(Vec<IpAddr>),
}

/// Whose outbound traffic is captured, by the process's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerGroups {
    /// Everybody's except these groups'.
    Except(Vec<u32>),
    /// Only these groups'.
    Only(Vec<u32>),
}

/// Which families get rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv4 and IPv6.
    V4AndV6,
}

/// Validated capture settings: what rules are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// HBONE port, never captured.
    pub tunnel_port: u16,
    /// The proxy's users.
    pub proxy_uids: Vec<u32>,
    /// The proxy's groups.
    pub proxy_gids: Vec<u32>,
    /// Inbound mode.
    pub mode: Mode,
    /// Inbound ports captured.
    pub inbound_include: Ports,
    /// Inbound ports left alone.
    pub inbound_exclude: Vec<u16>,
    /// Interfaces left alone.
    pub exclude_interfaces: Vec<String>,
    /// Interfaces of virtual machines, whose traffic is outbound traffic.
    pub reroute_interfaces: Vec<String>,
    /// Outbound ranges captured.
    pub outbound_ranges: IpRanges,
    /// Outbound ranges left alone.
    pub outbound_exclude_ranges: Vec<IpNet>,
    /// Outbound ports captured whatever their address.
    pub outbound_ports: Vec<u16>,
    /// Outbound ports left alone.
    pub outbound_exclude_ports: Vec<u16>,
    /// Owner filter.
    pub owner_groups: OwnerGroups,
    /// DNS capture.
    pub dns: DnsCapture,
    /// Whether packets of no connection are dropped.
    pub drop_invalid: bool,
    /// Families.
    pub families: Families,
}

impl Flags {
    /// Checks every flag.
    pub fn validate(&self) -> Result<Capture, Error> {
        let proxy_uids = ids("proxy-uid", &self.proxy_uid)?;
        let proxy_gids = if self.proxy_gid.trim().is_empty() {
            proxy_uids.clone()
        } else {
            ids("proxy-gid", &self.proxy_gid)?
        };
        Ok(Capture {
            outbound_port: port("envoy-port", &self.envoy_port)?,
            inbound_port: port("inbound-capture-port", &self.inbound_capture_port)?,
            tunnel_port: port("inbound-tunnel-port", &self.inbound_tunnel_port)?,
            proxy_uids,
            proxy_gids,
            mode: self.mode()?,
            inbound_include: match self.istio_inbound_ports.trim() {
                "*" => Ports::All,
                list => Ports::Some(ports("istio-inbound-ports", list)?),
            },
            inbound_exclude: ports("istio-local-exclude-ports", &self.istio_local_exclude_ports)?,
            exclude_interfaces: interfaces("istio-exclude-interfaces", &self.istio_exclude_interfaces)?,
            reroute_interfaces: interfaces("kube-virt-interfaces", &self.kube_virt_interfaces)?,
            outbound_ranges: match self.istio_service_cidr.trim() {
                "*" => IpRanges::All,
                list => IpRanges::Some(ranges("istio-service-cidr", list)?),
            },
            outbound_exclude_ranges: ranges("istio-service-exclude-cidr", &self.istio_service_exclude_cidr)?,
            outbound_ports: ports("istio-outbound-ports", &self.istio_outbound_ports)?,
            outbound_exclude_ports: ports(
                "istio-local-outbound-ports-exclude",
                &self.istio_local_outbound_ports_exclude,
            )?,
            owner_groups: self.owner_groups()?,
            dns: match (self.redirect_dns, self.capture_all_dns) {
                (_, true) => DnsCapture::All,
                (true, false) => DnsCapture::Servers(self.dns_servers.clone()),
                (false, false) => DnsCapture::Off,
            },
            drop_invalid: self.drop_invalid,
            families: if self.ipv6 { Families::V4AndV6 } else { Families::V4 },
        })
    }

    fn mode(&self) -> Result<Mode, Error> {
        match self.istio_inbound_interception_mode.trim() {
            "" | "REDIRECT" => Ok(Mode::Redirect),
            "NONE" => Ok(Mode::None),
            "TPROXY" => Ok(Mode::Tproxy {
                mark: id("istio-inbound-tproxy-mark", &self.istio_inbound_tproxy_mark)?,
                route_table: id("istio-inbound-tproxy-route-table", &self.istio_inbound_tproxy_route_table)?,
            }),
            other => Err(Error::Mode(other.into())),
        }
    }

    fn owner_groups(&self) -> Result<OwnerGroups, Error> {
        const FLAG: &str = "outbound-owner-groups";
        let include = self.outbound_owner_groups.trim();
        let exclude = ids(FLAG, &self.outbound_owner_groups_exclude)?;
        match include {
            "" | "*" => Ok(OwnerGroups::Except(exclude)),
            _ if !exclude.is_empty() => Err(Error::OwnerGroups),
            list => Ok(OwnerGroups::Only(ids(FLAG, list)?)),
        }
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn port(flag: &'static str, value: &str) -> Result<u16, Error> {
    match value.trim().parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Error::Port { flag, value: value.into() }),
    }
}

fn ports(flag: &'static str, list: &str) -> Result<Vec<u16>, Error> {
    let mut seen = Vec::new();
    for item in items(list) {
        let port = port(flag, item)?;
        if !seen.contains(&port) {
            seen.push(port);
        }
    }
    Ok(seen)
}

fn id(flag: &'static str, value: &str) -> Result<u32, Error> {
    value.trim().parse().map_err(|_| Error::Id { flag, value: value.into() })
}

fn ids(flag: &'static str, list: &str) -> Result<Vec<u32>, Error> {
    items(list).map(|item| id(flag, item)).collect()
}

/// An address without a length is that one address.
fn ranges(flag: &'static str, list: &str) -> Result<Vec<IpNet>, Error> {
    items(list)
        .map(|item| {
            item.parse::<IpNet>()
                .or_else(|_| item.parse::<IpAddr>().map(IpNet::from))
                .map(|net| net.trunc())
                .map_err(|_| Error::Cidr { flag, value: item.into() })
        })
        .collect()
}

fn interfaces(flag: &'static str, list: &str) -> Result<Vec<String>, Error> {
    items(list)
        .map(|item| {
            let name = item.strip_suffix('+').unwrap_or(item);
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':');
            if item.len() <= 15 && !name.is_empty() && name.chars().all(legal) {
                Ok(item.to_owned())
            } else {
                Err(Error::Interface { flag, value: item.into() })
            }
        })
        .collect()
}
