//! Handshakes in memory: who is let in, and what follows a change of certificates.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::{ClientAuth, ClientSide, PeerPolicy, ServerSide, Watched};
use crate::san::{San, SanMatcher};
use crate::{CertificateChain, KeyAlgorithm, KeyPair, Renewal, Svid, TrustBundle};

struct Ca {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    cert: rcgen::Certificate,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap().into_rcgen();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), cert }
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(&self.cert.pem()).unwrap()
    }

    fn svid(&self, san: &San, algorithm: KeyAlgorithm) -> Svid {
        let key = KeyPair::generate(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![san.to_rcgen().unwrap()];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(key.as_rcgen(), &self.issuer).unwrap();
        let chain = CertificateChain::from_pem(&(cert.pem() + &self.cert.pem())).unwrap();
        Svid::new(chain, Arc::new(key)).unwrap()
    }
}

fn handshake(client: &ClientSide, server: &ServerSide) -> Result<ServerConnection, String> {
    let name = ServerName::try_from("reviews.default.svc.cluster.local").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.config().unwrap()), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server.config().unwrap())).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        }
    }
    client.writer().write_all(b"x").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().map_err(|error| format!("server: {error}"))?;
    let mut byte = [0];
    server.reader().read_exact(&mut byte).map_err(|error| format!("no data: {error}"))?;
    Ok(server)
}

const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/productpage";

fn sides(ca: &Ca) -> (ClientSide, ServerSide) {
    let bundle = Watched::new(ca.bundle());
    let client = ClientSide {
        svid: Some(Watched::new(ca.svid(&San::uri(PRODUCTPAGE), KeyAlgorithm::EcdsaP256))),
        bundle: bundle.clone(),
        policy: PeerPolicy::sans(vec![SanMatcher::uri(REVIEWS)]),
        alpn: vec![b"istio".to_vec()],
    };
    let server = ServerSide {
        svid: Watched::new(ca.svid(&San::uri(REVIEWS), KeyAlgorithm::Rsa2048)),
        client_auth: ClientAuth::Required(bundle, PeerPolicy::any()),
        alpn: vec![b"istio".to_vec()],
    };
    (client, server)
}

#[test]
fn peers_of_one_mesh_meet_without_host_names() {
    let (client, server) = sides(&Ca::new("root"));
    let connection = handshake(&client, &server).unwrap();
    assert_eq!(connection.alpn_protocol(), Some(b"istio".as_slice()));
    let peer = crate::CertInfo::from_der(&connection.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(peer.spiffe_id().unwrap().to_string(), PRODUCTPAGE);
}

#[test]
fn a_server_of_another_name_is_refused_by_name() {
    let (mut client, server) = sides(&Ca::new("root"));
    client.policy = PeerPolicy::sans(vec![SanMatcher::uri("spiffe://cluster.local/ns/default/sa/ratings")]);
    let error = handshake(&client, &server).unwrap_err();
    assert!(error.contains("sa/reviews") && error.contains("sa/ratings"), "{error}");
}

#[test]
fn a_client_of_another_root_is_refused() {
    let (_, server) = sides(&Ca::new("root"));
    let (mut stranger, _) = sides(&Ca::new("other"));
    if let ClientAuth::Required(bundle, _) = &server.client_auth {
        stranger.bundle = bundle.clone();
    }
    let error = handshake(&stranger, &server).unwrap_err();
    assert!(error.starts_with("server: invalid peer certificate"), "{error}");
}

#[test]
fn a_client_without_a_certificate_passes_only_where_it_is_optional() {
    let (mut client, mut server) = sides(&Ca::new("root"));
    client.svid = None;
    assert!(handshake(&client, &server).is_err());
    if let ClientAuth::Required(bundle, policy) = server.client_auth.clone() {
        server.client_auth = ClientAuth::Optional(bundle, policy);
    }
    handshake(&client, &server).unwrap();
}

#[test]
fn without_a_bundle_nobody_is_let_in() {
    let (client, mut server) = sides(&Ca::new("root"));
    server.client_auth = ClientAuth::Required(Watched::empty(), PeerPolicy::any());
    assert!(handshake(&client, &server).unwrap_err().contains("no trust bundle"));
}

#[test]
fn configurations_follow_a_new_root() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (client, server) = sides(&old);
    server.svid.set(Arc::new(new.svid(&San::uri(REVIEWS), KeyAlgorithm::EcdsaP384)));
    assert!(handshake(&client, &server).is_err());
    client.bundle.set(Arc::new(old.bundle().merged(&new.bundle()).unwrap()));
    handshake(&client, &server).unwrap();
}

#[test]
fn the_server_name_is_checked_where_that_is_asked_for() {
    let ca = Ca::new("root");
    let (mut client, server) = sides(&ca);
    client.policy = PeerPolicy::server_name();
    assert!(handshake(&client, &server).is_err());
    let dns = San::dns("reviews.default.svc.cluster.local");
    server.svid.set(Arc::new(ca.svid(&dns, KeyAlgorithm::EcdsaP256)));
    handshake(&client, &server).unwrap();
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new("root");
    let one = ca.svid(&San::uri(REVIEWS), KeyAlgorithm::EcdsaP256);
    let two = ca.svid(&San::uri(REVIEWS), KeyAlgorithm::EcdsaP256);
    let error = Svid::from_pem(&one.chain().to_pem(), &two.key().to_pem()).unwrap_err();
    assert!(error.to_string().contains(REVIEWS), "{error}");
}

#[test]
fn renewal_is_due_at_half_of_what_is_left() {
    let ca = Ca::new("root");
    let svid = ca.svid(&San::uri(REVIEWS), KeyAlgorithm::EcdsaP256);
    let mut leaf = svid.leaf().clone();
    leaf.not_before = Timestamp::from_second(1_000).unwrap();
    leaf.not_after = Timestamp::from_second(2_000).unwrap();
    let renewal = Renewal { grace_ratio: 0.5, jitter: 0.0 };
    let mut rng = rand::rng();
    let mut at = |second| renewal.delay(&leaf, Timestamp::from_second(second).unwrap(), &mut rng).as_secs();
    // As if issued then: half of what is left, however far back the certificate is dated.
    assert_eq!((at(1_000), at(1_400), at(1_998), at(3_000)), (500, 300, 1, 0));
}
