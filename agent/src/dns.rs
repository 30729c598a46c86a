//! The agent's DNS server: names of the mesh from the name table, everything else from the pod's own resolvers.

mod answer;
mod forward;
mod resolv_conf;
mod server;
mod table;
#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use answer::local_answer;
pub use forward::Forwarder;
pub use resolv_conf::ResolvConf;
pub use server::{Error, Server};
pub use table::{NameTables, PodDomain};
