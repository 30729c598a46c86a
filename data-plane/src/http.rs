//! HTTP between the codecs: what happens to a request from its head's arrival to its response's last byte.

pub(crate) mod admit;
pub(crate) mod again;
pub(crate) mod attributes;
pub(crate) mod bodies;
pub(crate) mod body;
pub(crate) mod conn;
pub(crate) mod exchange;
pub(crate) mod forwarded;
pub(crate) mod gather;
pub(crate) mod handler;
pub(crate) mod head;
pub(crate) mod hop;
pub(crate) mod inform;
pub(crate) mod local_reply;
pub(crate) mod manager;
pub(crate) mod mutate;
pub(crate) mod path;
mod refusal;
pub(crate) mod request_id;
pub(crate) mod requests;
pub(crate) mod scan;
pub(crate) mod seen;
pub(crate) mod timers;
pub(crate) mod transform;
pub(crate) mod tunnel;
pub(crate) mod xfcc;
