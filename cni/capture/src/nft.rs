//! Rules as an `nft -f` script. Tables are ours alone, and replaced as a whole in one transaction: applying twice changes
//! nothing, and removal is their deletion.

use ipnet::IpNet;

use crate::rule::{CtState, Maybe};
use crate::{Chain, Family, Matches, Owner, Plan, PortMatch, Proto, Rule, Ruleset, Table, Target};

const TABLES: [Table; 3] = [Table::Raw, Table::Mangle, Table::Nat];

/// A script that puts the plan in place of whatever capture rules there are.
pub fn render(plan: &Plan) -> String {
    let mut out = removal();
    for rules in std::iter::once(&plan.v4).chain(plan.v6.as_ref()) {
        for table in rules.tables() {
            table_block(&mut out, rules, table);
        }
    }
    out
}

/// A script that removes all capture rules. It succeeds when there are none.
pub fn removal() -> String {
    let mut out = String::new();
    for family in [Family::V4, Family::V6] {
        for table in TABLES {
            let name = format!("{} {}", family_name(family), table_name(table));
            // Deleting what does not exist is an error: it is made first.
            out.push_str(&format!("add table {name}\ndelete table {name}\n"));
        }
    }
    out
}

fn table_block(out: &mut String, rules: &Ruleset, table: Table) {
    out.push_str(&format!("table {} {} {{\n", family_name(rules.family), table_name(table)));
    // Chains of ours come first: a jump needs its target to be known.
    let mut chains = rules.chains(table);
    chains.sort_by_key(|chain| chain.is_builtin());
    for chain in &chains {
        out.push_str(&format!("\tchain {} {{\n", chain_name(*chain)));
        if let Some(hook) = hook(table, *chain) {
            out.push_str(&format!("\t\t{hook}\n"));
        }
        out.push_str("\t}\n");
    }
    for chain in &chains {
        out.push_str(&format!("\tchain {} {{\n", chain_name(*chain)));
        for rule in rules.rules_of(table, *chain) {
            out.push_str(&format!("\t\t{}\n", statement(rules.family, rule)));
        }
        out.push_str("\t}\n");
    }
    out.push_str("}\n");
}

fn hook(table: Table, chain: Chain) -> Option<&'static str> {
    match (table, chain) {
        (Table::Raw, Chain::Prerouting) => Some("type filter hook prerouting priority -300; policy accept;"),
        (Table::Raw, Chain::Output) => Some("type filter hook output priority -300; policy accept;"),
        (Table::Mangle, Chain::Prerouting) => {
            Some("type filter hook prerouting priority -150; policy accept;")
        }
        // A changed mark must lead to a new look at the routes, as in iptables' mangle table.
        (Table::Mangle, Chain::Output) => Some("type route hook output priority -150; policy accept;"),
        (Table::Nat, Chain::Prerouting) => Some("type nat hook prerouting priority -100; policy accept;"),
        (Table::Nat, Chain::Output) => Some("type nat hook output priority -100; policy accept;"),
        _ => None,
    }
}

fn statement(family: Family, rule: &Rule) -> String {
    let mut out = String::new();
    write_matches(&mut out, family, &rule.matches);
    out.push_str(&target(&rule.target));
    out
}

fn write_matches(out: &mut String, family: Family, matches: &Matches) {
    let mut put = |text: std::fmt::Arguments<'_>| out.push_str(&text.to_string());
    let ip = family_name(family);
    let whole = |net: &IpNet| net.prefix_len() == 0;
    if let Some(net) = matches.source.filter(|net| !whole(net)) {
        put(format_args!("{ip} saddr {net} "));
    }
    match &matches.destination {
        Some(Maybe::Is(net)) if !whole(net) => put(format_args!("{ip} daddr {net} ")),
        Some(Maybe::Not(net)) => put(format_args!("{ip} daddr != {net} ")),
        _ => {}
    }
    if let Some(name) = &matches.in_interface {
        put(format_args!("iifname {} ", interface(name)));
    }
    if let Some(name) = &matches.out_interface {
        put(format_args!("oifname {} ", interface(name)));
    }
    let proto = matches.proto.map_or("tcp", proto_name);
    match &matches.port {
        Some(PortMatch::Source(port)) => put(format_args!("{proto} sport {port} ")),
        Some(PortMatch::Dest(port)) => put(format_args!("{proto} dport {port} ")),
        Some(PortMatch::DestNoneOf(ports)) => {
            let list: Vec<String> = ports.iter().map(u16::to_string).collect();
            put(format_args!("{proto} dport != {{ {} }} ", list.join(", ")));
        }
        None if matches.proto.is_some() => put(format_args!("meta l4proto {proto} ")),
        None => {}
    }
    match matches.mark {
        Some(Maybe::Is(mark)) => put(format_args!("meta mark {mark:#x} ")),
        Some(Maybe::Not(mark)) => put(format_args!("meta mark != {mark:#x} ")),
        None => {}
    }
    if let Some(mark) = matches.connmark {
        put(format_args!("ct mark {mark:#x} "));
    }
    match matches.state {
        Some(CtState::Invalid) => put(format_args!("ct state invalid ")),
        Some(CtState::RelatedEstablished) => put(format_args!("ct state related,established ")),
        None => {}
    }
    for owner in &matches.owners {
        let (sign, owner) = match owner {
            Maybe::Is(owner) => ("", owner),
            Maybe::Not(owner) => ("!= ", owner),
        };
        match owner {
            Owner::Uid(id) => put(format_args!("meta skuid {sign}{id} ")),
            Owner::Gid(id) => put(format_args!("meta skgid {sign}{id} ")),
        }
    }
}

/// iptables writes "any that begins so" with `+`, nft with `*`.
fn interface(name: &str) -> String {
    match name.strip_suffix('+') {
        Some(prefix) => format!("\"{prefix}*\""),
        None => format!("\"{name}\""),
    }
}

fn target(target: &Target) -> String {
    match target {
        Target::Return => "return".into(),
        Target::Accept => "accept".into(),
        Target::Drop => "drop".into(),
        Target::Jump(chain) => format!("jump {}", chain_name(*chain)),
        Target::Redirect(port) => format!("redirect to :{port}"),
        Target::Tproxy { port, mark } => format!("meta mark set {mark:#x} tproxy to :{port} accept"),
        Target::CtZone(zone) => format!("ct zone set {zone}"),
        Target::Mark(mark) => format!("meta mark set {mark:#x}"),
        Target::SaveMark => "ct mark set meta mark".into(),
        Target::RestoreMark => "meta mark set ct mark".into(),
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
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
        Table::Raw => "istio-proxy-raw",
        Table::Mangle => "istio-proxy-mangle",
        Table::Nat => "istio-proxy-nat",
    }
}

fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Prerouting => "prerouting",
        Chain::Output => "output",
        Chain::IstioInbound => "istio-inbound",
        Chain::IstioRedirect => "istio-redirect",
        Chain::IstioInRedirect => "istio-in-redirect",
        Chain::IstioOutput => "istio-output",
        Chain::IstioOutputDns => "istio-output-dns",
        Chain::IstioDivert => "istio-divert",
        Chain::IstioTproxy => "istio-tproxy",
        Chain::IstioDrop => "istio-drop",
    }
}
