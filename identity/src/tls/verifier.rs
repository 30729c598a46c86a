//! rustls' two verifier traits, implemented once: whoever decides about certificates brings a [`Judge`]; signatures are
//! checked here, as the provider can.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// What a peer presents in a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its own certificate.
    pub leaf: &'a CertificateDer<'a>,
    /// What it sent besides.
    pub intermediates: &'a [CertificateDer<'a>],
    /// The time.
    pub now: UnixTime,
}

/// Decides whether a peer is who it should be. That it has the certificate's key is checked elsewhere.
pub trait Judge: fmt::Debug + Send + Sync {
    /// A server, of which a client asked for this name.
    fn server(&self, presented: Presented<'_>, name: &ServerName<'_>) -> Result<(), Error>;

    /// A client.
    fn client(&self, presented: Presented<'_>) -> Result<(), Error>;
}

/// A judge as rustls calls it, on either side.
#[derive(Debug)]
pub struct Verifier<J> {
    judge: J,
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl<J: Judge> Verifier<J> {
    /// Peers without a certificate are served.
    pub fn optional(judge: J, provider: &CryptoProvider) -> Arc<Self> {
        Self::new(judge, provider, false)
    }

    /// Clients without a certificate are refused.
    pub fn required(judge: J, provider: &CryptoProvider) -> Arc<Self> {
        Self::new(judge, provider, true)
    }

    fn new(judge: J, provider: &CryptoProvider, mandatory: bool) -> Arc<Self> {
        Arc::new(Self { judge, algorithms: provider.signature_verification_algorithms, mandatory })
    }
}

/// The half of both traits that is about signatures.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, signature, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.server(Presented { leaf, intermediates, now }, name)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl<J: Judge> ClientCertVerifier for Verifier<J> {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Roots change while this list is borrowed for the verifier's life, and workloads hold one certificate only:
        // there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge.client(Presented { leaf, intermediates, now })?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}
