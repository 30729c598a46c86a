//! sail-agent: keys, certificates, SDS, ADS relay, DNS, probes, proxy supervision.

fn main() {}
