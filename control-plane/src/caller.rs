//! What a connection and its headers say about who calls, for the authority's authenticators.

use saild_ca::authenticate::Credentials;
use saild_serve::transport::Peer;
use tonic::Request;
use tonic::metadata::MetadataMap;

/// Puts [`Credentials`] into the extensions of a gRPC request.
pub(crate) fn attach(mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
    let text = |metadata: &MetadataMap, key: &str| {
        metadata.get(key).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let authorization = text(request.metadata(), "authorization");
    let cluster = text(request.metadata(), "clusterid");
    let credentials = of(request.extensions().get::<Peer>(), authorization.as_deref(), cluster);
    request.extensions_mut().insert(credentials);
    Ok(request)
}

/// The credentials of an HTTP request.
pub(crate) fn of_http(request: &saild_serve::http::Request) -> Credentials {
    let authorization =
        request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    of(Some(&request.peer), authorization, None)
}

fn of(peer: Option<&Peer>, authorization: Option<&str>, cluster: Option<String>) -> Credentials {
    let bearer = authorization.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    Credentials {
        bearer,
        certificate: peer.and_then(|peer| peer.certificate.clone()),
        cluster,
        peer: peer.map(|peer| peer.address),
        encrypted: peer.is_some_and(|peer| peer.encrypted),
    }
}
