//! Traffic capture as typed rules, and their rendering as iptables and nftables.
