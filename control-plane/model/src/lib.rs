//! What the mesh consists of: services, endpoints, workloads, policies, and the indexes over them.
