//! TLS on both sides. A set of its own: most listeners, and clusters in large numbers, never see a handshake.

use crate::stats::schema::stat_set;

macro_rules! tls_set {
    ($(#[$doc:meta])* $name:ident, $root:literal, $label:literal, $not_ready:literal) => {
        stat_set! {
            $(#[$doc])*
            $name {
                root: $root, tag: Tag::Label($label), lazy: ["ssl.ciphers.", "ssl.curves.", "ssl.versions."]
            }
            counters {
                handshake = "ssl.handshake",
                connection_error = "ssl.connection_error",
                session_reused = "ssl.session_reused",
                no_certificate = "ssl.no_certificate",
                secrets_not_ready = $not_ready,
                fail_verify_no_cert = "ssl.fail_verify_no_cert",
                fail_verify_error = "ssl.fail_verify_error",
                fail_verify_san = "ssl.fail_verify_san",
                fail_verify_cert_hash = "ssl.fail_verify_cert_hash",
                tls_v1_2 = "ssl.versions.TLSv1.2",
                tls_v1_3 = "ssl.versions.TLSv1.3",
                x25519 = "ssl.curves.X25519",
                x25519_mlkem768 = "ssl.curves.X25519MLKEM768",
                p_256 = "ssl.curves.P-256",
                p_384 = "ssl.curves.P-384",
                p_521 = "ssl.curves.P-521",
                aes_128 = "ssl.ciphers.TLS_AES_128_GCM_SHA256",
                aes_256 = "ssl.ciphers.TLS_AES_256_GCM_SHA384",
                chacha20 = "ssl.ciphers.TLS_CHACHA20_POLY1305_SHA256",
                ecdsa_aes_128 = "ssl.ciphers.ECDHE-ECDSA-AES128-GCM-SHA256",
                ecdsa_aes_256 = "ssl.ciphers.ECDHE-ECDSA-AES256-GCM-SHA384",
                ecdsa_chacha20 = "ssl.ciphers.ECDHE-ECDSA-CHACHA20-POLY1305",
                rsa_aes_128 = "ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256",
                rsa_aes_256 = "ssl.ciphers.ECDHE-RSA-AES256-GCM-SHA384",
                rsa_chacha20 = "ssl.ciphers.ECDHE-RSA-CHACHA20-POLY1305",
            }
            gauges {}
            histograms {}
        }
    };
}

tls_set! {
    /// `listener.<address>.ssl.`
    listener_tls, "listener", "envoy.listener_address",
    "server_ssl_socket_factory.downstream_context_secrets_not_ready"
}

tls_set! {
    /// `cluster.<name>.ssl.`
    cluster_tls, "cluster", "envoy.cluster_name",
    "client_ssl_socket_factory.upstream_context_secrets_not_ready"
}
