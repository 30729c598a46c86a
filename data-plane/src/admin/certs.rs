//! `/certs`: certificates in use, in the form of `envoy.admin.v3.Certificates`. Nothing of a key is shown.

use std::sync::Arc;

use identity::CertInfo;
use sail_proxy_config::cluster::Cluster;
use sail_proxy_config::listener::Listener;
use sail_proxy_config::secret::{Certificate, Secret, ValidationContext};
use sail_proxy_config::tls::{CertificateSource, CommonTls};
use serde_json::{Value, json};

use super::Page;
use crate::server::Main;

pub(super) fn page(main: &Main) -> Page {
    let mut all: Vec<Value> = Vec::new();
    if let Some(manager) = main.discovery.get() {
        let snapshot = manager.parts().current();
        // One entry for each certificate with the roots beside it, however many contexts use them.
        let mut chains: Vec<Arc<Certificate>> = Vec::new();
        let mut roots: Vec<Arc<ValidationContext>> = Vec::new();
        for secret in snapshot.secrets.values() {
            match secret {
                Secret::Certificate(certificate) => chains.push(certificate.clone()),
                Secret::Validation(context) => roots.push(context.clone()),
                Secret::SessionTicketKeys(_) | Secret::Generic(_) => {}
            }
        }
        snapshot.listeners.iter().for_each(|listener| of_listener(listener, &mut chains, &mut roots));
        snapshot.clusters.values().for_each(|cluster| of_cluster(cluster, &mut chains, &mut roots));
        chains.iter_mut().for_each(|chain| *chain = snapshot.files.certificate(chain).clone());
        roots.iter_mut().for_each(|context| *context = snapshot.files.validation(context).clone());
        chains.sort_by_key(|chain| chain.version);
        chains.dedup_by_key(|chain| chain.version);
        roots.sort_by_key(|context| context.version);
        roots.dedup_by_key(|context| context.version);
        let ca: Vec<Value> =
            roots.iter().flat_map(|context| &context.trusted_ca).filter_map(|der| entry(der)).collect();
        for chain in chains {
            let certs: Vec<Value> =
                chain.certified.cert.first().and_then(|der| entry(der)).into_iter().collect();
            all.push(json!({ "ca_cert": ca, "cert_chain": certs }));
        }
        if all.is_empty() && !ca.is_empty() {
            all.push(json!({ "ca_cert": ca, "cert_chain": [] }));
        }
    }
    super::json(&json!({ "certificates": all }))
}

fn of_listener(
    listener: &Listener,
    chains: &mut Vec<Arc<Certificate>>,
    roots: &mut Vec<Arc<ValidationContext>>,
) {
    for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
        if let Some(tls) = chain.socket.tls() {
            of_tls(&tls.common, chains, roots);
        }
    }
}

fn of_cluster(
    cluster: &Cluster,
    chains: &mut Vec<Arc<Certificate>>,
    roots: &mut Vec<Arc<ValidationContext>>,
) {
    let matches = cluster.socket_matches.iter().map(|entry| &entry.socket);
    for socket in matches.chain([&cluster.socket]) {
        if let Some(tls) = socket.tls() {
            of_tls(&tls.common, chains, roots);
        }
    }
}

fn of_tls(common: &CommonTls, chains: &mut Vec<Arc<Certificate>>, roots: &mut Vec<Arc<ValidationContext>>) {
    for source in &common.certificates {
        if let CertificateSource::Inline(certificate) = source {
            chains.push(certificate.clone());
        }
    }
    roots.extend(common.validation.context.clone());
}

fn entry(der: &[u8]) -> Option<Value> {
    let info = CertInfo::from_der(der).ok()?;
    let uris = info.uris().map(|uri| json!({ "uri": uri }));
    let names = info.dns_names().map(|name| json!({ "dns": name }));
    let sans: Vec<Value> = uris.chain(names).collect();
    let now = jiff::Timestamp::now();
    let left = info.not_after.duration_since(now).as_secs().max(0);
    Some(json!({
        "path": "<inline>",
        // Whole bytes, as Envoy writes it.
        "serial_number": format!("{}{}", if info.serial.len() % 2 == 1 { "0" } else { "" }, info.serial),
        "subject_alt_names": sans,
        "days_until_expiration": (left / 86_400).to_string(),
        "valid_from": info.not_before.to_string(),
        "expiration_time": info.not_after.to_string(),
    }))
}
