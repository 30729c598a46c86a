//! `Gateway`: the ports that an ingress or egress proxy opens.

mod validate;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::decode::take;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use std::collections::BTreeMap;

pub(crate) use validate::server_tls as validate_server_tls;

message! {
    /// `networking.istio.io/Gateway`.
    pub struct Gateway {
        servers: Vec<Server>,
        /// Labels of the gateway's pods.
        selector: BTreeMap<String, String>,
    }
}

impl Spec for Gateway {
    const KIND: Kind = Kind::Gateway;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::gateway(self, meta, cx);
    }
}

message! {
    /// One port and the hosts served on it.
    pub struct Server {
        port: Port,
        bind: String,
        /// `host`, `namespace/host`, `./host` or `*/host`.
        hosts: Vec<String>,
        tls: Option<ServerTls>,
        /// Without effect, as in Istio.
        default_endpoint: String,
        name: String,
    }
}

message! {
    legacy(without_target_port);
    /// A port with its protocol.
    pub struct Port {
        number: u16,
        protocol: String,
        name: String,
    }
}

/// The deprecated `targetPort` never had an effect.
fn without_target_port<'a>(mut map: Cow<'a, Map<String, Value>>, cx: &mut Cx) -> Cow<'a, Map<String, Value>> {
    if crate::decode::has(&map, "target_port") {
        take(map.to_mut(), "target_port");
        cx.warn_at("targetPort", "has no effect here");
    }
    map
}

message! {
    /// `ServerTLSSettings`.
    pub struct ServerTls {
        https_redirect: bool,
        mode: ServerTlsMode,
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
        ca_crl: String,
        subject_alt_names: Vec<String>,
        credential_name: String,
        credential_names: Vec<String>,
        tls_certificates: Vec<TlsCertificate>,
        ca_cert_credential_name: String,
        verify_certificate_spki: Vec<String>,
        verify_certificate_hash: Vec<String>,
        min_protocol_version: TlsProtocol,
        max_protocol_version: TlsProtocol,
        cipher_suites: Vec<String>,
        ecdh_curves: Vec<String>,
        insecure_skip_verify: Option<bool>,
    }
}

message! {
    /// A certificate in files.
    pub struct TlsCertificate {
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
    }
}

enumeration! {
    /// How a server terminates TLS.
    pub enum ServerTlsMode {
        #[default]
        Passthrough = "PASSTHROUGH" = 0,
        Simple = "SIMPLE" = 1,
        Mutual = "MUTUAL" = 2,
        AutoPassthrough = "AUTO_PASSTHROUGH" = 3,
        IstioMutual = "ISTIO_MUTUAL" = 4,
        OptionalMutual = "OPTIONAL_MUTUAL" = 5,
    }
}

enumeration! {
    /// Versions of TLS.
    pub enum TlsProtocol {
        #[default]
        TlsAuto = "TLS_AUTO" = 0,
        TlsV1_0 = "TLSV1_0" = 1,
        TlsV1_1 = "TLSV1_1" = 2,
        TlsV1_2 = "TLSV1_2" = 3,
        TlsV1_3 = "TLSV1_3" = 4,
    }
}
