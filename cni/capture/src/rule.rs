//! The vocabulary of rules: tables, chains, matches, targets. No text in here; the renderings own theirs.

use ipnet::IpNet;

/// IPv4 or IPv6: each family has a rule set of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The tables that capture uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Connection tracking zones.
    Raw,
    /// Marks and TPROXY.
    Mangle,
    /// Redirection.
    Nat,
}

/// A chain: two of the kernel's and those that capture makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// Packets that arrive.
    Prerouting,
    /// Packets that leave.
    Output,
    /// Arriving packets, before it is known whether they are captured.
    IstioInbound,
    /// To the outbound listener.
    IstioRedirect,
    /// To the inbound listener.
    IstioInRedirect,
    /// Leaving packets, before it is known whether they are captured.
    IstioOutput,
    /// DNS queries to the agent.
    IstioOutputDns,
    /// Packets of established TPROXY connections.
    IstioDivert,
    /// New TPROXY connections.
    IstioTproxy,
    /// What is thrown away.
    IstioDrop,
}

impl Chain {
    /// Whether the kernel owns this chain.
    pub fn is_builtin(self) -> bool {
        matches!(self, Self::Prerouting | Self::Output)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A match that may be turned round.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Maybe<T> {
    /// Matches this.
    Is(T),
    /// Matches everything else.
    Not(T),
}

/// A match on a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PortMatch {
    /// The source port.
    Source(u16),
    /// The destination port.
    Dest(u16),
    /// Any destination port except these.
    DestNoneOf(Vec<u16>),
}

/// Who owns the socket that sent the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A user id.
    Uid(u32),
    /// A group id.
    Gid(u32),
}

/// State of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtState {
    /// Not part of any connection.
    Invalid,
    /// Part of, or related to, an established connection.
    RelatedEstablished,
}

/// What a packet must be for a rule to apply: all of these together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Matches {
    /// Source address.
    pub source: Option<IpNet>,
    /// Destination address.
    pub destination: Option<Maybe<IpNet>>,
    /// Interface that it came in by.
    pub in_interface: Option<String>,
    /// Interface that it goes out by.
    pub out_interface: Option<String>,
    /// Transport protocol.
    pub proto: Option<Proto>,
    /// Port.
    pub port: Option<PortMatch>,
    /// Packet mark.
    pub mark: Option<Maybe<u32>>,
    /// Connection mark.
    pub connmark: Option<u32>,
    /// Connection state.
    pub state: Option<CtState>,
    /// Owners, each of which must match.
    pub owners: Vec<Maybe<Owner>>,
}

impl Matches {
    /// Matches every TCP packet.
    pub fn tcp() -> Self {
        Self { proto: Some(Proto::Tcp), ..Self::default() }
    }

    /// Matches one destination port of a protocol.
    pub fn to_port(proto: Proto, port: u16) -> Self {
        Self { proto: Some(proto), port: Some(PortMatch::Dest(port)), ..Self::default() }
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Back to the chain that called.
    Return,
    /// Through.
    Accept,
    /// Away.
    Drop,
    /// On in another chain.
    Jump(Chain),
    /// To a local port.
    Redirect(u16),
    /// To a local transparent socket, marked.
    Tproxy {
        /// The socket's port.
        port: u16,
        /// The mark that routes the packet to it.
        mark: u32,
    },
    /// Tracked in a zone of its own.
    CtZone(u16),
    /// Marked.
    Mark(u32),
    /// Packet mark copied to the connection.
    SaveMark,
    /// Connection mark copied to the packet.
    RestoreMark,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its table.
    pub table: Table,
    /// Its chain.
    pub chain: Chain,
    /// What it applies to.
    pub matches: Matches,
    /// What it does.
    pub target: Target,
}

/// The rules of one family, in the order in which they are appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The family.
    pub family: Family,
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Ruleset {
    /// Tables that have rules, in the kernel's order.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = self.rules.iter().map(|rule| rule.table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Chains of a table that hold rules or are jumped to, in a fixed order.
    pub fn chains(&self, table: Table) -> Vec<Chain> {
        let mut chains = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.table == table) {
            chains.push(rule.chain);
            if let Target::Jump(chain) = rule.target {
                chains.push(chain);
            }
        }
        chains.sort_unstable();
        chains.dedup();
        chains
    }

    /// The rules of one chain of one table.
    pub fn rules_of(&self, table: Table, chain: Chain) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.table == table && rule.chain == chain)
    }
}
