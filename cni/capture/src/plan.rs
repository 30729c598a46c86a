//! Capture settings to rules, in the order in which a packet must meet them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::rule::{CtState, Maybe};
use crate::{
    Capture, Chain, DnsCapture, Families, Family, IpRanges, Matches, Mode, Owner, OwnerGroups, PortMatch,
    Ports, Proto, Rule, Ruleset, Table, Target,
};

/// The agent's DNS port.
const DNS_AGENT_PORT: u16 = 15053;
const DNS_PORT: u16 = 53;
/// Zone of queries that the agent itself sends, and of the answers to them.
const ZONE_AGENT: u16 = 1;
/// Zone of queries that applications send to the agent.
const ZONE_APP: u16 = 2;

/// Everything that capture changes in a pod's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// IPv4 rules.
    pub v4: Ruleset,
    /// IPv6 rules, when the pod has IPv6.
    pub v6: Option<Ruleset>,
    /// The route that delivers marked packets locally (TPROXY).
    pub routing: Option<PolicyRouting>,
}

/// `ip rule add fwmark MARK lookup TABLE` and `ip route add local default dev lo table TABLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRouting {
    /// Mark of the packets.
    pub mark: u32,
    /// Routing table.
    pub table: u32,
}

impl PolicyRouting {
    /// Arguments of the `ip` commands that set the route up, one list a command. Each may fail with "File exists".
    pub fn setup(self, family: Family) -> [Vec<String>; 2] {
        self.commands(family, "add")
    }

    /// Arguments of the `ip` commands that remove the route.
    pub fn teardown(self, family: Family) -> [Vec<String>; 2] {
        self.commands(family, "del")
    }

    fn commands(self, family: Family, verb: &str) -> [Vec<String>; 2] {
        let family = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        let words = |text: String| text.split(' ').map(str::to_owned).collect();
        [
            words(format!("{family} rule {verb} fwmark {} lookup {}", self.mark, self.table)),
            words(format!("{family} route {verb} local default dev lo table {}", self.table)),
        ]
    }
}

/// Makes the rules.
pub fn plan(capture: &Capture) -> Plan {
    let build = |family| Builder { capture, family, rules: Vec::new() }.build();
    Plan {
        v4: build(Family::V4),
        v6: (capture.families == Families::V4AndV6).then(|| build(Family::V6)),
        routing: match capture.mode {
            Mode::Tproxy { mark, route_table } => Some(PolicyRouting { mark, table: route_table }),
            Mode::Redirect | Mode::None => None,
        },
    }
}

struct Builder<'a> {
    capture: &'a Capture,
    family: Family,
    rules: Vec<Rule>,
}

impl Builder<'_> {
    fn build(mut self) -> Ruleset {
        self.exclude_interfaces();
        self.drop_invalid();
        self.redirect_chains();
        if let Mode::Tproxy { mark, .. } = self.capture.mode {
            self.tproxy_guards(mark);
        }
        self.inbound();
        self.nat(Chain::Output, Matches::default(), Target::Jump(Chain::IstioOutput));
        self.outbound_exclude_ports();
        self.proxy_traffic();
        self.owner_groups();
        self.dns();
        self.outbound_ranges();
        if let Mode::Tproxy { mark, .. } = self.capture.mode {
            self.tproxy_marks(mark);
        }
        Ruleset { family: self.family, rules: self.rules }
    }

    fn push(&mut self, table: Table, chain: Chain, matches: Matches, target: Target) {
        self.rules.push(Rule { table, chain, matches, target });
    }

    fn nat(&mut self, chain: Chain, matches: Matches, target: Target) {
        self.push(Table::Nat, chain, matches, target);
    }

    fn mangle(&mut self, chain: Chain, matches: Matches, target: Target) {
        self.push(Table::Mangle, chain, matches, target);
    }

    fn is_tproxy(&self) -> bool {
        matches!(self.capture.mode, Mode::Tproxy { .. })
    }

    fn loopback(&self) -> IpNet {
        match self.family {
            Family::V4 => IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST)),
            Family::V6 => IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)),
        }
    }

    /// The address from which the inbound proxy calls the application.
    fn passthrough_source(&self) -> IpNet {
        match self.family {
            Family::V4 => IpNet::from(IpAddr::from(Ipv4Addr::new(127, 0, 0, 6))),
            Family::V6 => IpNet::from(IpAddr::from(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))),
        }
    }

    fn ours<'n>(&self, nets: &'n [IpNet]) -> Vec<&'n IpNet> {
        let family = self.family;
        nets.iter()
            .filter(|net| matches!((net, family), (IpNet::V4(_), Family::V4) | (IpNet::V6(_), Family::V6)))
            .collect()
    }

    fn exclude_interfaces(&mut self) {
        let outbound_ranges = match &self.capture.outbound_ranges {
            IpRanges::All => vec![None],
            IpRanges::Some(nets) => self.ours(nets).into_iter().map(|net| Some(Maybe::Is(*net))).collect(),
        };
        for name in self.capture.reroute_interfaces.clone() {
            for destination in outbound_ranges.clone() {
                let matches = Matches {
                    in_interface: Some(name.clone()),
                    destination,
                    proto: Some(Proto::Tcp),
                    ..Matches::default()
                };
                self.nat(Chain::Prerouting, matches, Target::Jump(Chain::IstioRedirect));
            }
            let matches = Matches { in_interface: Some(name), ..Matches::default() };
            self.nat(Chain::Prerouting, matches, Target::Return);
        }
        for name in self.capture.exclude_interfaces.clone() {
            let inbound = Matches { in_interface: Some(name.clone()), ..Matches::default() };
            let outbound = Matches { out_interface: Some(name), ..Matches::default() };
            if self.is_tproxy() {
                self.mangle(Chain::Prerouting, inbound.clone(), Target::Return);
                self.mangle(Chain::Output, outbound.clone(), Target::Return);
            }
            self.nat(Chain::Prerouting, inbound, Target::Return);
            self.nat(Chain::Output, outbound, Target::Return);
        }
    }

    fn drop_invalid(&mut self) {
        if self.capture.drop_invalid {
            let invalid = Matches { state: Some(CtState::Invalid), ..Matches::default() };
            self.mangle(Chain::Prerouting, invalid, Target::Jump(Chain::IstioDrop));
            self.mangle(Chain::IstioDrop, Matches::default(), Target::Drop);
        }
    }

    fn redirect_chains(&mut self) {
        let (outbound, inbound) = (self.capture.outbound_port, self.capture.inbound_port);
        let tunnel = Matches::to_port(Proto::Tcp, self.capture.tunnel_port);
        self.nat(Chain::IstioInbound, tunnel, Target::Return);
        self.nat(Chain::IstioRedirect, Matches::tcp(), Target::Redirect(outbound));
        self.nat(Chain::IstioInRedirect, Matches::tcp(), Target::Redirect(inbound));
    }

    /// What must not be caught a second time: it stands before all other inbound rules.
    fn tproxy_guards(&mut self, mark: u32) {
        let tcp = Matches::tcp;
        let source = self.passthrough_source();
        let lo = || Some("lo".to_owned());
        let guards = [
            Matches { mark: Some(Maybe::Is(mark)), ..tcp() },
            Matches { source: Some(source), in_interface: lo(), ..tcp() },
            Matches { in_interface: lo(), mark: Some(Maybe::Not(mark.saturating_add(1))), ..tcp() },
        ];
        for guard in guards {
            self.mangle(Chain::IstioInbound, guard, Target::Return);
        }
    }

    fn inbound(&mut self) {
        let table = match self.capture.mode {
            Mode::None => return,
            Mode::Redirect => Table::Nat,
            Mode::Tproxy { .. } => Table::Mangle,
        };
        let ports = self.capture.inbound_include.clone();
        if ports == Ports::Some(Vec::new()) {
            return;
        }
        if let Mode::Tproxy { mark, .. } = self.capture.mode {
            self.mangle(Chain::IstioDivert, Matches::default(), Target::Mark(mark));
            self.mangle(Chain::IstioDivert, Matches::default(), Target::Accept);
            let new = Matches { destination: Some(Maybe::Not(self.loopback())), ..Matches::tcp() };
            let port = self.capture.inbound_port;
            self.mangle(Chain::IstioTproxy, new, Target::Tproxy { port, mark });
        }
        self.push(table, Chain::Prerouting, Matches::tcp(), Target::Jump(Chain::IstioInbound));
        match ports {
            Ports::All => {
                for port in self.capture.inbound_exclude.clone() {
                    self.push(table, Chain::IstioInbound, Matches::to_port(Proto::Tcp, port), Target::Return);
                }
                self.capture_inbound(Matches::tcp());
            }
            Ports::Some(ports) => {
                for port in ports {
                    self.capture_inbound(Matches::to_port(Proto::Tcp, port));
                }
            }
        }
    }

    fn capture_inbound(&mut self, matches: Matches) {
        if self.is_tproxy() {
            let established = Matches { state: Some(CtState::RelatedEstablished), ..matches.clone() };
            self.mangle(Chain::IstioInbound, established, Target::Jump(Chain::IstioDivert));
            self.mangle(Chain::IstioInbound, matches, Target::Jump(Chain::IstioTproxy));
        } else {
            self.nat(Chain::IstioInbound, matches, Target::Jump(Chain::IstioInRedirect));
        }
    }

    fn outbound_exclude_ports(&mut self) {
        for port in self.capture.outbound_exclude_ports.clone() {
            for proto in [Proto::Tcp, Proto::Udp] {
                self.nat(Chain::IstioOutput, Matches::to_port(proto, port), Target::Return);
            }
        }
        let passthrough = Matches {
            source: Some(self.passthrough_source()),
            out_interface: Some("lo".into()),
            ..Matches::default()
        };
        self.nat(Chain::IstioOutput, passthrough, Target::Return);
    }

    fn owners(&self) -> Vec<Owner> {
        let uids = self.capture.proxy_uids.iter().copied().map(Owner::Uid);
        uids.chain(self.capture.proxy_gids.iter().copied().map(Owner::Gid)).collect()
    }

    /// The proxy calling its own pod goes through the inbound side; applications on loopback and the proxy's calls to
    /// others are left alone.
    fn proxy_traffic(&mut self) {
        let captures_dns = self.capture.dns != DnsCapture::Off;
        let lo = || Some("lo".to_owned());
        for owner in self.owners() {
            let tunnel = self.capture.tunnel_port;
            let not_ports = if captures_dns { vec![DNS_PORT, tunnel] } else { vec![tunnel] };
            let to_self = Matches {
                destination: Some(Maybe::Not(self.loopback())),
                out_interface: lo(),
                port: Some(PortMatch::DestNoneOf(not_ports)),
                owners: vec![Maybe::Is(owner)],
                ..Matches::tcp()
            };
            self.nat(Chain::IstioOutput, to_self, Target::Jump(Chain::IstioInRedirect));
            if !self.includes_loopback() {
                let mut on_loopback =
                    Matches { out_interface: lo(), owners: vec![Maybe::Not(owner)], ..Matches::default() };
                if captures_dns {
                    // A name server on loopback is asked over TCP too, and that query is captured below.
                    on_loopback.proto = Some(Proto::Tcp);
                    on_loopback.port = Some(PortMatch::DestNoneOf(vec![DNS_PORT]));
                }
                self.nat(Chain::IstioOutput, on_loopback, Target::Return);
            }
            let any = Matches { owners: vec![Maybe::Is(owner)], ..Matches::default() };
            self.nat(Chain::IstioOutput, any, Target::Return);
        }
    }

    fn includes_loopback(&self) -> bool {
        match &self.capture.outbound_ranges {
            IpRanges::All => false,
            IpRanges::Some(nets) => nets.iter().any(|net| net.addr().is_loopback()),
        }
    }

    fn owner_groups(&mut self) {
        match &self.capture.owner_groups {
            OwnerGroups::Except(gids) => {
                for gid in gids.clone() {
                    let matches = Matches { owners: vec![Maybe::Is(Owner::Gid(gid))], ..Matches::default() };
                    self.nat(Chain::IstioOutput, matches, Target::Return);
                }
            }
            OwnerGroups::Only(gids) => {
                let owners = gids.iter().map(|gid| Maybe::Not(Owner::Gid(*gid))).collect();
                self.nat(Chain::IstioOutput, Matches { owners, ..Matches::default() }, Target::Return);
            }
        }
    }

    fn dns(&mut self) {
        let servers: Vec<Option<IpNet>> = match &self.capture.dns {
            DnsCapture::Off => return,
            DnsCapture::All => vec![None],
            DnsCapture::Servers(servers) => {
                let nets: Vec<IpNet> = servers.iter().copied().map(IpNet::from).collect();
                self.ours(&nets).into_iter().map(|net| Some(*net)).collect()
            }
        };
        let jump = || Target::Jump(Chain::IstioOutputDns);
        self.nat(Chain::IstioOutput, Matches::default(), jump());
        self.push(Table::Raw, Chain::Output, Matches::default(), jump());
        for proto in [Proto::Tcp, Proto::Udp] {
            for server in &servers {
                let query =
                    Matches { destination: server.map(Maybe::Is), ..Matches::to_port(proto, DNS_PORT) };
                self.nat(Chain::IstioOutputDns, query, Target::Redirect(DNS_AGENT_PORT));
            }
        }
        self.dns_zones(&servers);
    }

    /// An application and the agent may ask the same server from the same port: zones keep their connections apart.
    fn dns_zones(&mut self, servers: &[Option<IpNet>]) {
        for owner in self.owners() {
            let owners = || vec![Maybe::Is(owner)];
            let asks = Matches { owners: owners(), ..Matches::to_port(Proto::Udp, DNS_PORT) };
            let answers = Matches {
                proto: Some(Proto::Udp),
                port: Some(PortMatch::Source(DNS_AGENT_PORT)),
                owners: owners(),
                ..Matches::default()
            };
            self.push(Table::Raw, Chain::IstioOutputDns, asks, Target::CtZone(ZONE_AGENT));
            self.push(Table::Raw, Chain::IstioOutputDns, answers, Target::CtZone(ZONE_APP));
        }
        self.push(Table::Raw, Chain::Prerouting, Matches::default(), Target::Jump(Chain::IstioInbound));
        for server in servers {
            let asks =
                Matches { destination: server.map(Maybe::Is), ..Matches::to_port(Proto::Udp, DNS_PORT) };
            self.push(Table::Raw, Chain::IstioOutputDns, asks, Target::CtZone(ZONE_APP));
            let answers = Matches {
                source: *server,
                proto: Some(Proto::Udp),
                port: Some(PortMatch::Source(DNS_PORT)),
                ..Matches::default()
            };
            self.push(Table::Raw, Chain::IstioInbound, answers, Target::CtZone(ZONE_AGENT));
        }
    }

    fn outbound_ranges(&mut self) {
        let to = |net: IpNet| Matches { destination: Some(Maybe::Is(net)), ..Matches::default() };
        self.nat(Chain::IstioOutput, to(self.loopback()), Target::Return);
        for net in self.ours(&self.capture.outbound_exclude_ranges) {
            self.nat(Chain::IstioOutput, to(*net), Target::Return);
        }
        for port in self.capture.outbound_ports.clone() {
            let matches = Matches::to_port(Proto::Tcp, port);
            self.nat(Chain::IstioOutput, matches, Target::Jump(Chain::IstioRedirect));
        }
        match &self.capture.outbound_ranges {
            IpRanges::All => {
                self.nat(Chain::IstioOutput, Matches::default(), Target::Jump(Chain::IstioRedirect));
            }
            IpRanges::Some(nets) => {
                for net in self.ours(nets) {
                    self.nat(Chain::IstioOutput, to(*net), Target::Jump(Chain::IstioRedirect));
                }
            }
        }
    }

    fn tproxy_marks(&mut self, mark: u32) {
        let lo = || Some("lo".to_owned());
        let marked = Matches { mark: Some(Maybe::Is(mark)), ..Matches::tcp() };
        self.mangle(Chain::Prerouting, marked.clone(), Target::SaveMark);
        self.mangle(Chain::Output, Matches { out_interface: lo(), ..marked }, Target::Return);
        for owner in self.owners() {
            let to_self = Matches {
                destination: Some(Maybe::Not(self.loopback())),
                out_interface: lo(),
                owners: vec![Maybe::Is(owner)],
                ..Matches::tcp()
            };
            self.mangle(Chain::Output, to_self, Target::Mark(mark.saturating_add(1)));
        }
        let back = Matches { connmark: Some(mark), ..Matches::tcp() };
        self.mangle(Chain::Output, back, Target::RestoreMark);
    }
}
