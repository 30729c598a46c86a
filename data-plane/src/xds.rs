//! Discovery: from the bootstrap and the management servers to the snapshot that workers run.

mod certificates;
mod checks;
mod convert;
mod draining;
mod files;
mod inline;
mod layers;
mod leaving;
mod manager;
mod needs;
mod path;
mod raw;
mod resources;
mod servers;
mod snapshot;
mod stream;
mod subscriptions;
mod take;
mod warm;

pub use convert::Around;
pub use manager::{Error, Manager};
pub use path::service_path;
pub use raw::{Held, Kind, Refused};
pub use snapshot::Parts;
