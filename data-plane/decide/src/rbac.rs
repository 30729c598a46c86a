//! Role-based access control: who may do what, for HTTP requests and for TCP connections.

mod attributes;
mod engine;

use std::sync::Arc;

use crate::address::CidrSet;
use crate::cel::Program;
use crate::matcher::tree::MatchTree;
use crate::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher};
use crate::path_template::PathTemplate;

pub use attributes::Known;
pub use engine::{Input, Peer, Verdict};

/// A request or connection, as matcher trees see it.
pub fn data<I: Input>(input: &I) -> impl crate::matcher::tree::Data + '_ {
    attributes::Known(input)
}

/// The RBAC filter's configuration.
#[derive(Debug, Default)]
pub struct RbacConfig {
    /// Rules that decide; `None`: everything passes.
    pub rules: Option<Engine>,
    /// Rules that are only counted.
    pub shadow_rules: Option<Engine>,
    /// A prefix for statistics of the rules.
    pub rules_stat_prefix: Arc<str>,
    /// A prefix for statistics and metadata of the shadow rules.
    pub shadow_rules_stat_prefix: Arc<str>,
    /// Whether each policy has statistics of its own.
    pub track_per_rule_stats: bool,
}

/// What decides.
#[derive(Debug)]
pub enum Engine {
    /// Policies.
    Policies(Rules),
    /// A tree whose leaves say what is done; what reaches no leaf is refused.
    Matcher(MatchTree<NamedAction>),
}

/// `envoy.config.rbac.v3.Action`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAction {
    /// Its name, which stands for a policy's.
    pub name: Arc<str>,
    /// What is done.
    pub action: RuleAction,
}

/// `RBAC`: an action and policies, sorted by name.
#[derive(Debug)]
pub struct Rules {
    /// What a match means.
    pub action: RuleAction,
    /// The policies.
    pub policies: Box<[Policy]>,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Only what matches passes.
    Allow,
    /// What matches does not pass.
    Deny,
    /// Everything passes; what matches is marked for the access log.
    Log,
}

/// A policy: one of its permissions and one of its principals must match.
#[derive(Debug)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// What may be done.
    pub permissions: Box<[Permission]>,
    /// By whom.
    pub principals: Box<[Principal]>,
    /// What must hold besides.
    pub condition: Option<Program>,
}

/// `Permission`
#[derive(Debug)]
pub enum Permission {
    /// All of these.
    And(Box<[Permission]>),
    /// One of these.
    Or(Box<[Permission]>),
    /// Anything.
    Any,
    /// Not this.
    Not(Box<Permission>),
    /// A request header.
    Header(HeaderMatcher),
    /// The path, without its query.
    UrlPath(StringMatcher),
    /// The path, by template.
    UriTemplate(PathTemplate),
    /// The address that was connected to.
    DestinationIp(CidrSet),
    /// The port that was connected to, in a half-open range.
    DestinationPort(std::ops::Range<u32>),
    /// Dynamic metadata.
    Metadata(MetadataMatcher),
    /// The route's metadata.
    RouteMetadata(MetadataMatcher),
    /// The SNI.
    RequestedServerName(StringMatcher),
}

/// `Principal`
#[derive(Debug)]
pub enum Principal {
    /// All of these.
    And(Box<[Principal]>),
    /// One of these.
    Or(Box<[Principal]>),
    /// Anyone.
    Any,
    /// Not this one.
    Not(Box<Principal>),
    /// Who proved who they are: a URI SAN, else a DNS SAN, else the subject matches. `None`: any TLS peer.
    Authenticated(Option<StringMatcher>),
    /// Who gave a certificate that was verified, with such a name in it; `None`: any name.
    Certificate(Option<SanMatcher>),
    /// The connection's peer, after PROXY protocol.
    SourceIp(CidrSet),
    /// The connection's peer, before PROXY protocol.
    DirectRemoteIp(CidrSet),
    /// The client, after `x-forwarded-for`.
    RemoteIp(CidrSet),
    /// A request header.
    Header(HeaderMatcher),
    /// The path, without its query.
    UrlPath(StringMatcher),
    /// Dynamic metadata.
    Metadata(MetadataMatcher),
    /// The route's metadata.
    RouteMetadata(MetadataMatcher),
    /// A filter state object, as its string.
    FilterState(Box<str>, StringMatcher),
    /// A filter state object that is an address.
    FilterStateAddress(Box<str>, CidrSet, Invert),
}

/// A match on names of one kind in a certificate.
#[derive(Debug)]
pub struct SanMatcher {
    /// The kind.
    pub kind: SanKind,
    /// What the name must be.
    pub name: StringMatcher,
}

/// Kinds of names in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// URI.
    Uri,
    /// DNS.
    Dns,
}

/// Whether a result is turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invert {
    /// It stands.
    No,
    /// It is turned round.
    Yes,
}
