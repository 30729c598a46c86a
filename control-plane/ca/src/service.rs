//! `istio.v1.auth.IstioCertificateService`: certificates for workloads that show who they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use xds_api::istio::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use xds_api::istio::auth::{IstioCertificateRequest, IstioCertificateResponse};

use crate::authenticate::{Authenticators, Caller, Credentials, Refusal};
use crate::error::Error;
use crate::store::Ca;

/// What the service did so far, under the names of Istio's metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// `citadel_server_csr_count`.
    pub requests: AtomicU64,
    /// `citadel_server_success_cert_issuance_count`.
    pub issued: AtomicU64,
    /// `citadel_server_authentication_failure_count`.
    pub refused: AtomicU64,
    /// `citadel_server_csr_parsing_err_count`.
    pub unreadable: AtomicU64,
    /// `citadel_server_csr_sign_err_count`.
    pub unsigned: AtomicU64,
}

/// The service.
#[derive(Clone, Debug)]
pub struct CertificateService {
    ca: Arc<Ca>,
    authenticators: Authenticators,
    counters: Arc<Counters>,
}

impl CertificateService {
    /// Issues from an authority to whom the authenticators recognize. The server must put [`Credentials`] into the
    /// extensions of each request.
    pub fn new(ca: Arc<Ca>, authenticators: Authenticators, counters: Arc<Counters>) -> Self {
        Self { ca, authenticators, counters }
    }

    /// As a gRPC service.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self)
    }

    async fn caller(&self, credentials: Option<&Credentials>) -> Result<Caller, Status> {
        let credentials = credentials.ok_or_else(|| Status::unauthenticated(Refusal::Nothing.to_string()))?;
        self.authenticators.authenticate(credentials).await.map_err(|refusal| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            warn!(peer = ?credentials.peer, "certificate request refused: {refusal}");
            match refusal {
                Refusal::Unavailable { .. } => Status::unavailable(refusal.to_string()),
                _ => Status::unauthenticated(refusal.to_string()),
            }
        })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let caller = self.caller(request.extensions().get::<Credentials>()).await?;
        let request = request.into_inner();
        if let Some(field) = request.metadata.iter().flat_map(|metadata| metadata.fields.keys()).next() {
            return Err(Status::invalid_argument(format!(
                "metadata.{field} is not supported: this authority signs with its own root, for the caller only"
            )));
        }
        let id = caller
            .spiffe_id(self.ca.trust_domain())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issued = self.ca.issue(&request.csr, &id, request.validity_duration, Timestamp::now());
        let cert_chain = issued.map_err(|error| {
            let counter = match error {
                Error::Request(_) => &self.counters.unreadable,
                _ => &self.counters.unsigned,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            warn!(%id, "certificate not issued: {error}");
            status(&error)
        })?;
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        info!(%id, pod = caller.pod.as_deref().unwrap_or_default(), "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

fn status(error: &Error) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error {
        Error::Request(_) | Error::TooLong { .. } | Error::Negative(_) => Status::invalid_argument(text),
        Error::Expired(_) => Status::failed_precondition(text),
        _ => Status::internal(text),
    }
}
