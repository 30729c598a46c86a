//! What injector, agent and control plane agree on: environment variables, ports, paths, annotations.
