//! Where the model comes from: Kubernetes, a directory of manifests.
//!
//! ```text
//! source (directory · kube) ── Change ──► Store ── dirty keys ──► Adapter ──► MeshBuilder ──► Arc<Mesh> + ChangeSet
//! ```
//!
//! A [`Source`] knows where objects come from and nothing of what they mean; [`adapt`] turns Kubernetes' objects into the
//! model and knows no source. [`Registry`] joins the two and publishes one consistent snapshot after another.

pub mod adapt;
pub mod directory;
pub mod kubernetes;
pub mod object;
pub mod registry;
pub mod source;
pub mod store;

pub use adapt::Options;
pub use directory::{Directory, FileStatus};
pub use kubernetes::Kubernetes;
pub use object::{Key, Object};
pub use registry::{Registry, Update, Updates};
pub use source::{Change, Source};
pub use store::Store;
