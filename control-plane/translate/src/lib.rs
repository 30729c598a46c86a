//! From the model to xDS resources: listeners, clusters, routes, endpoints, policies.
