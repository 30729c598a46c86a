//! Black-box tests: they drive the binaries as a user does.
