//! What can be wrong with the capture flags, said in the words of the flag.

/// A flag that cannot be turned into rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A port that is not 1–65535.
    #[error("--{flag}: {value:?} is not a port (1 to 65535)")]
    Port {
        /// The flag's name.
        flag: &'static str,
        /// What was written.
        value: String,
    },
    /// An address range that does not parse.
    #[error("--{flag}: {value:?} is not an address range (as 10.0.0.0/8)")]
    Cidr {
        /// The flag's name.
        flag: &'static str,
        /// What was written.
        value: String,
    },
    /// A user or group id that is not a number.
    #[error("--{flag}: {value:?} is not a numeric id")]
    Id {
        /// The flag's name.
        flag: &'static str,
        /// What was written.
        value: String,
    },
    /// A network interface name that the kernel would not accept.
    #[error("--{flag}: {value:?} is not the name of a network interface")]
    Interface {
        /// The flag's name.
        flag: &'static str,
        /// What was written.
        value: String,
    },
    /// An interception mode other than REDIRECT, TPROXY, NONE.
    #[error("--istio-inbound-interception-mode: {0:?} is none of REDIRECT, TPROXY, NONE")]
    Mode(String),
    /// Both an include and an exclude list of owner groups.
    #[error("outbound owner groups: an include list and an exclude list were given; only one can be used")]
    OwnerGroups,
}
