//! Rules as `iptables-restore --noflush` reads them, in the very form in which `iptables-save` prints them: so that what
//! the kernel holds can be compared with what is wanted, line by line.

use ipnet::IpNet;

use crate::rule::{CtState, Maybe};
use crate::{Chain, Family, Matches, Owner, PortMatch, Proto, Rule, Ruleset, Table, Target};

const TABLES: [Table; 3] = [Table::Raw, Table::Mangle, Table::Nat];

/// Input of `iptables-restore --noflush` for a namespace that holds no capture rules yet.
pub fn restore(rules: &Ruleset) -> String {
    let mut out = String::new();
    for table in rules.tables() {
        section(&mut out, table, Vec::new(), Some(rules));
    }
    out
}

/// Input of `iptables-restore --noflush` that leads from what `iptables-save` printed to exactly `wanted`, or to no capture
/// rules at all when `wanted` is `None`. `None` is returned when nothing has to change. Other people's rules stay.
pub fn replace(saved: &str, wanted: Option<&Ruleset>) -> Option<String> {
    let mut out = String::new();
    for table in TABLES {
        let current = Current::of(saved, table, wanted);
        let target = wanted.map(|rules| Current::of(&restore(rules), table, wanted)).unwrap_or_default();
        if current != target {
            section(&mut out, table, current.removal(), wanted);
        }
    }
    (!out.is_empty()).then_some(out)
}

/// What one table holds of ours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Current {
    /// Lines without `-A`, in order, of the kernel's chains.
    builtin: Vec<String>,
    /// Lines in chains of ours.
    own: Vec<(String, Vec<String>)>,
}

impl Current {
    fn of(saved: &str, table: Table, wanted: Option<&Ruleset>) -> Self {
        let known: Vec<String> = wanted
            .map(|rules| {
                rules
                    .rules
                    .iter()
                    .filter(|rule| rule.table == table)
                    .map(|rule| line(rules.family, rule))
                    .collect()
            })
            .unwrap_or_default();
        let mut current = Self::default();
        let mut inside = false;
        for raw in saved.lines().map(str::trim) {
            if let Some(name) = raw.strip_prefix('*') {
                inside = name == table_name(table);
            } else if !inside {
                continue;
            } else if let Some(chain) = raw.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                if chain.starts_with("ISTIO_") {
                    current.own.push((chain.to_owned(), Vec::new()));
                }
            } else if let Some(rule) = raw.strip_prefix("-A ") {
                current.add(rule, &known);
            }
        }
        // The order counts within a chain only.
        current.own.sort();
        current.builtin.sort_by(|a, b| chain_of(a).cmp(chain_of(b)));
        current
    }

    fn add(&mut self, rule: &str, known: &[String]) {
        let chain = chain_of(rule);
        if let Some((_, rules)) = self.own.iter_mut().find(|(name, _)| name == chain) {
            rules.push(rule.to_owned());
        } else if rule.contains("-j ISTIO_") || known.iter().any(|line| line == rule) {
            self.builtin.push(rule.to_owned());
        }
    }

    fn removal(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.builtin.iter().map(|rule| format!("-D {rule}")).collect();
        lines.extend(self.own.iter().map(|(chain, _)| format!("-F {chain}")));
        lines.extend(self.own.iter().map(|(chain, _)| format!("-X {chain}")));
        lines
    }
}

fn chain_of(rule: &str) -> &str {
    rule.split(' ').next().unwrap_or_default()
}

fn section(out: &mut String, table: Table, removal: Vec<String>, wanted: Option<&Ruleset>) {
    out.push('*');
    out.push_str(table_name(table));
    out.push('\n');
    for line in removal {
        out.push_str(&line);
        out.push('\n');
    }
    if let Some(rules) = wanted {
        for chain in rules.chains(table).into_iter().filter(|chain| !chain.is_builtin()) {
            out.push_str(&format!(":{} - [0:0]\n", chain_name(chain)));
        }
        for rule in rules.rules.iter().filter(|rule| rule.table == table) {
            out.push_str("-A ");
            out.push_str(&line(rules.family, rule));
            out.push('\n');
        }
    }
    out.push_str("COMMIT\n");
}

/// One rule, beginning with its chain.
fn line(family: Family, rule: &Rule) -> String {
    let mut out = chain_name(rule.chain).to_owned();
    write_matches(&mut out, &rule.matches);
    out.push_str(" -j ");
    out.push_str(&target(family, &rule.target));
    out
}

fn write_matches(out: &mut String, matches: &Matches) {
    let mut put = |text: std::fmt::Arguments<'_>| out.push_str(&text.to_string());
    let whole = |net: &IpNet| net.prefix_len() == 0;
    if let Some(net) = matches.source.filter(|net| !whole(net)) {
        put(format_args!(" -s {net}"));
    }
    match &matches.destination {
        Some(Maybe::Is(net)) if !whole(net) => put(format_args!(" -d {net}")),
        Some(Maybe::Not(net)) => put(format_args!(" ! -d {net}")),
        _ => {}
    }
    if let Some(name) = &matches.in_interface {
        put(format_args!(" -i {name}"));
    }
    if let Some(name) = &matches.out_interface {
        put(format_args!(" -o {name}"));
    }
    let proto = matches.proto.map(proto_name);
    if let Some(proto) = proto {
        put(format_args!(" -p {proto}"));
    }
    let proto = proto.unwrap_or("tcp");
    match &matches.port {
        Some(PortMatch::Source(port)) => put(format_args!(" -m {proto} --sport {port}")),
        Some(PortMatch::Dest(port)) => put(format_args!(" -m {proto} --dport {port}")),
        Some(PortMatch::DestNoneOf(ports)) => match ports.as_slice() {
            [port] => put(format_args!(" -m {proto} ! --dport {port}")),
            ports => {
                let list: Vec<String> = ports.iter().map(u16::to_string).collect();
                put(format_args!(" -m multiport ! --dports {}", list.join(",")));
            }
        },
        None => {}
    }
    match matches.mark {
        Some(Maybe::Is(mark)) => put(format_args!(" -m mark --mark {mark:#x}")),
        Some(Maybe::Not(mark)) => put(format_args!(" -m mark ! --mark {mark:#x}")),
        None => {}
    }
    if let Some(mark) = matches.connmark {
        put(format_args!(" -m connmark --mark {mark:#x}"));
    }
    if let Some(state) = matches.state {
        let state = match state {
            CtState::Invalid => "INVALID",
            CtState::RelatedEstablished => "RELATED,ESTABLISHED",
        };
        put(format_args!(" -m conntrack --ctstate {state}"));
    }
    for owner in &matches.owners {
        match owner {
            Maybe::Is(owner) => put(format_args!(" -m owner {}", owner_name(*owner))),
            Maybe::Not(owner) => put(format_args!(" -m owner ! {}", owner_name(*owner))),
        }
    }
}

fn target(family: Family, target: &Target) -> String {
    match target {
        Target::Return => "RETURN".into(),
        Target::Accept => "ACCEPT".into(),
        Target::Drop => "DROP".into(),
        Target::Jump(chain) => chain_name(*chain).into(),
        Target::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Target::Tproxy { port, mark } => {
            let any = match family {
                Family::V4 => "0.0.0.0",
                Family::V6 => "::",
            };
            format!("TPROXY --on-port {port} --on-ip {any} --tproxy-mark {mark:#x}/0xffffffff")
        }
        Target::CtZone(zone) => format!("CT --zone {zone}"),
        Target::Mark(mark) => format!("MARK --set-xmark {mark:#x}/0xffffffff"),
        Target::SaveMark => "CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff".into(),
        Target::RestoreMark => "CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff".into(),
    }
}

fn owner_name(owner: Owner) -> String {
    match owner {
        Owner::Uid(id) => format!("--uid-owner {id}"),
        Owner::Gid(id) => format!("--gid-owner {id}"),
    }
}

fn proto_name(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
    }
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Mangle => "mangle",
        Table::Nat => "nat",
    }
}

fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "PREROUTING",
        Chain::Output => "OUTPUT",
        Chain::IstioInbound => "ISTIO_INBOUND",
        Chain::IstioRedirect => "ISTIO_REDIRECT",
        Chain::IstioInRedirect => "ISTIO_IN_REDIRECT",
        Chain::IstioOutput => "ISTIO_OUTPUT",
        Chain::IstioOutputDns => "ISTIO_OUTPUT_DNS",
        Chain::IstioDivert => "ISTIO_DIVERT",
        Chain::IstioTproxy => "ISTIO_TPROXY",
        Chain::IstioDrop => "ISTIO_DROP",
    }
}
