//! The proxy's pure decisions: filter chain, route, policy, load balancing, retry, outliers.
