//! saild, the control plane: flags and wiring.

fn main() {}
