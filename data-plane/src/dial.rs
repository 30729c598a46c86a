//! The main thread's own connections to clusters: discovery, collectors, access log services. Requests never come
//! this way; they have the workers' pools.

mod grpc;
mod target;
mod tls;

pub use grpc::{GrpcError, H2Service, grpc, grpc_over};
pub(crate) use target::duration;
pub use target::{Address, ClientTls, Connect, Target, TargetError};
pub(crate) use tls::{client as client_tls, own_header, wrap};

/// Where a cluster is reached, by its name.
pub(crate) type Targets = std::rc::Rc<dyn Fn(&str) -> Option<Target>>;
