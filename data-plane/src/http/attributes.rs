//! What substitution operators in header values read of a request that is under way: what logs read, live.

pub(crate) use crate::access_log::View as RequestAttributes;
