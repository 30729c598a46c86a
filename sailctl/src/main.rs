//! sailctl: the local mesh, and a view into proxies and control plane.

fn main() {}
