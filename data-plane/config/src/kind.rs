//! The kinds of resources that there are.

use std::fmt;

use xds_api::type_url;

/// Kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// CDS
    Cluster,
    /// EDS
    Assignment,
    /// LDS
    Listener,
    /// RDS
    RouteTable,
    /// SRDS
    Scope,
    /// SDS
    Secret,
    /// ECDS
    Extension,
}

impl Kind {
    /// The kind of a type URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Some(match url {
            type_url::CLUSTER => Self::Cluster,
            type_url::ENDPOINT => Self::Assignment,
            type_url::LISTENER => Self::Listener,
            type_url::ROUTE => Self::RouteTable,
            type_url::SCOPED_ROUTE => Self::Scope,
            type_url::SECRET => Self::Secret,
            type_url::EXTENSION_CONFIG => Self::Extension,
            _ => return None,
        })
    }

    /// Its type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Assignment => type_url::ENDPOINT,
            Self::Listener => type_url::LISTENER,
            Self::RouteTable => type_url::ROUTE,
            Self::Scope => type_url::SCOPED_ROUTE,
            Self::Secret => type_url::SECRET,
            Self::Extension => type_url::EXTENSION_CONFIG,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Assignment => "load assignment",
            Self::Listener => "listener",
            Self::RouteTable => "route configuration",
            Self::Scope => "scoped route configuration",
            Self::Secret => "secret",
            Self::Extension => "extension configuration",
        })
    }
}
