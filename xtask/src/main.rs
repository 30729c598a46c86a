//! The repository's own checks: tidy, graph, goldens.

fn main() {}
