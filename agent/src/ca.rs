//! The certificate authority's client: one request, one chain.

use std::time::Duration;

use identity::{CertificateChain, TrustBundle};
use tonic::Request;
use xds_api::google::protobuf::{Struct, Value, value::Kind};
use xds_api::istio::auth::IstioCertificateRequest;
use xds_api::istio::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use crate::upstream::{self, Upstream};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why no certificate was got.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The authority cannot be reached.
    #[error("the certificate authority cannot be reached")]
    Upstream(#[from] upstream::Error),
    /// It refused.
    #[error("the certificate authority answered {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// It took too long.
    #[error("the certificate authority did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// What it sent is no chain.
    #[error("the certificate authority sent an unusable chain")]
    Chain(#[from] identity::Error),
    /// It sent too little.
    #[error("the certificate authority sent {0} certificates; a leaf and a root are expected")]
    Short(usize),
}

/// What the authority answered.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf and intermediates, without the root.
    pub chain: CertificateChain,
    /// The root.
    pub bundle: TrustBundle,
}

/// Asks for certificates.
#[derive(Clone, Debug)]
pub struct CaClient {
    upstream: Upstream,
    signer: String,
}

impl CaClient {
    /// `signer` names one of the authority's signers; empty leaves the choice to it.
    pub fn new(upstream: Upstream, signer: impl Into<String>) -> Self {
        Self { upstream, signer: signer.into() }
    }

    /// Sends a request (PEM) and checks what comes back.
    pub async fn sign(&self, csr: String, ttl: Duration) -> Result<Issued, Error> {
        tokio::time::timeout(TIMEOUT, self.call(csr, ttl)).await.map_err(|_| Error::Timeout)?
    }

    async fn call(&self, csr: String, ttl: Duration) -> Result<Issued, Error> {
        let channel = self.upstream.connect().await?;
        let message = IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.metadata(),
        };
        let mut request = Request::new(message);
        self.upstream.authenticate(request.metadata_mut()).await?;
        let response = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await
            .map_err(|status| Error::Refused(Box::new(status)))?;
        let pems = response.into_inner().cert_chain;
        let all = CertificateChain::from_pem(&pems.join("\n"))?;
        let [_, .., root] = all.certs() else { return Err(Error::Short(all.certs().len())) };
        let bundle = TrustBundle::new(vec![root.clone()])?;
        Ok(Issued { chain: all.without_roots(bundle.roots()), bundle })
    }

    fn metadata(&self) -> Option<Struct> {
        if self.signer.is_empty() {
            return None;
        }
        let value = Value { kind: Some(Kind::StringValue(self.signer.clone())) };
        Some(Struct { fields: [("CertSigner".to_owned(), value)].into() })
    }
}
