//! The xDS protocol without I/O: subscriptions, versions, nonces; delta inside, state-of-the-world at the wire.
