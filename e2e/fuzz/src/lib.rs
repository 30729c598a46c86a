//! What must hold of everything that reads foreign bytes: a function of bytes for each reader, which panics if it does
//! not hold. `tests/seeds.rs` runs them over seeds and changed seeds; the fuzzers in `fuzz/` run the same functions.

mod api;
mod config;
mod expression;
mod token;

pub use api::{dns, manifest, mesh_config};
pub use config::{bootstrap, resource, route_table};
pub use expression::{cel, format, header_value, path_template};
pub use sail_proxy::inputs::{
    client_hello, forwarded, http_inspector, http1_head, http1_requests, http1_response, http2_client,
    http2_upstream, path, proxy_protocol,
};
pub use token::{jwks, jwt};

/// A property.
pub type Property = fn(&[u8]);

/// Every property, by its name.
pub const ALL: &[(&str, Property)] = &[
    ("bootstrap", bootstrap),
    ("cel", cel),
    ("client_hello", client_hello),
    ("dns", dns),
    ("format", format),
    ("forwarded", forwarded),
    ("header_value", header_value),
    ("http1_head", http1_head),
    ("http1_requests", http1_requests),
    ("http1_response", http1_response),
    ("http2_client", http2_client),
    ("http2_upstream", http2_upstream),
    ("http_inspector", http_inspector),
    ("jwks", jwks),
    ("jwt", jwt),
    ("manifest", manifest),
    ("mesh_config", mesh_config),
    ("path", path),
    ("path_template", path_template),
    ("proxy_protocol", proxy_protocol),
    ("resource", resource),
    ("route_table", route_table),
];

/// The text that bytes are, if they are text.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Two parts of the bytes: what stands before the first zero, and what after it.
fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
