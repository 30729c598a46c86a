//! TLS towards an upstream.

message! {
    /// `ClientTLSSettings`.
    pub struct ClientTls {
        mode: ClientTlsMode,
        client_certificate: String,
        private_key: String,
        ca_certificates: String,
        ca_crl: String,
        credential_name: String,
        subject_alt_names: Vec<String>,
        sni: String,
        insecure_skip_verify: Option<bool>,
    }
}

enumeration! {
    /// Whether TLS is used towards the upstream, and with which certificate.
    pub enum ClientTlsMode {
        #[default]
        Disable = "DISABLE" = 0,
        Simple = "SIMPLE" = 1,
        Mutual = "MUTUAL" = 2,
        IstioMutual = "ISTIO_MUTUAL" = 3,
    }
}
