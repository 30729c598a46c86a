//! JSON and YAML in and out.
