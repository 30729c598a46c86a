//! What every process needs once: logging, drain, readiness, back-off, supervised tasks.

pub mod backoff;
pub mod drain;
pub mod log;
pub mod readiness;
pub mod task;
