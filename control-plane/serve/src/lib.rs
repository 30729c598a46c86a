//! The ADS server: who is connected, what each watches, and when it is sent what. It knows [`host::Host`], which makes
//! the resources, and nothing of how they are made.

mod admission;
pub mod connection;
pub mod debounce;
pub mod debug;
pub mod host;
pub mod http;
pub mod metrics;
pub mod server;
mod stream;
pub mod transport;

pub use host::{Affected, Generator, Host, Identity, View};
pub use server::{Ads, Options, Pusher};
