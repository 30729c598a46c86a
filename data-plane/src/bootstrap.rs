//! The bootstrap: read from files and flags, with the node that the proxy shows to its control plane.

mod fields;
mod node;
mod read;
mod split;
mod stats_config;

pub use fields::{check as check_fields, tracer};
pub use node::{complete as complete_node, extensions};
pub use read::{
    Error, Loaded, child_read, child_read_message, child_write_json, file_to_message, load, to_json,
};
pub use stats_config::rules as stats_rules;
