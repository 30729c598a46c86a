//! What every process needs once: logging, drain, readiness, back-off, supervised tasks.
