//! Discovery: from the bootstrap and the management servers to the snapshot that workers run.

mod path;
mod stream;

pub use path::service_path;
pub use stream::{Applier, Service, Subscription, run as run_stream};
