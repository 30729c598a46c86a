//! Traffic capture: which packets of a pod go through its proxy, as typed rules and their renderings.
//!
//! [`Flags`] (what the command line said) become [`Capture`] (what is meant), then [`Plan`] (rules), then text for
//! `iptables-restore` ([`iptables`]) or `nft` ([`nft`]). Nothing here runs a command: the caller hands in what the kernel
//! holds now (`iptables-save`) and carries out what comes back. So the same plan is tested, shown, and applied.

mod error;
mod flags;
pub mod iptables;
pub mod nft;
mod plan;
mod rule;

pub use error::Error;
pub use flags::{Capture, DnsCapture, Families, Flags, IpRanges, Mode, OwnerGroups, Ports};
pub use iptables::{replace as render_iptables, restore as render_iptables_restore};
pub use nft::render as render_nft;
pub use plan::{Plan, PolicyRouting, plan};
pub use rule::{
    Chain, CtState, Family, Matches, Maybe, Owner, PortMatch, Proto, Rule, Ruleset, Table, Target,
};
