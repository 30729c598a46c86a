//! `credential_injector`

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Entry, HttpFilterKind};
use crate::callout::{HttpTarget, http_uri};
use crate::convert::{Cx, arc, type_name, values};
use crate::pb;
use crate::pb::filters::http::credential_injector::v3 as proto;
use crate::source::ResourceRef;
use xds_api::envoy::extensions::http::injected_credentials::{generic, oauth2};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
    convert: |cx, any| Some(HttpFilterKind::CredentialInjector(Arc::new(read(cx, any)?))),
    per_route: None,
};

/// How long to wait after a token could not be had, where nothing is said.
const RETRY: Duration = Duration::from_secs(2);

/// `CredentialInjector`
#[derive(Debug)]
pub struct CredentialInjector {
    /// Whether a header that is there is replaced.
    pub overwrite: bool,
    /// Whether requests pass if there is no credential.
    pub allow_without: bool,
    /// What is put in.
    pub credential: Credential,
}

/// `credential`
#[derive(Debug)]
pub enum Credential {
    /// `Generic`
    Generic {
        /// The secret.
        secret: ResourceRef,
        /// Where it goes.
        header: HeaderName,
        /// What stands before it.
        prefix: Box<str>,
    },
    /// `OAuth2`
    OAuth2(OAuth2),
}

/// `OAuth2`, whose tokens go into `authorization`.
#[derive(Debug)]
pub struct OAuth2 {
    /// Where tokens are had.
    pub endpoint: HttpTarget,
    /// What they are to allow.
    pub scopes: Arc<str>,
    /// Who asks.
    pub client_id: Arc<str>,
    /// The password.
    pub client_secret: ResourceRef,
    /// Whether both go into the body, and not into a header.
    pub in_body: bool,
    /// How long to wait after a token could not be had.
    pub retry: Duration,
    /// What else goes into the body.
    pub params: Box<[(Box<str>, Box<str>)]>,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<CredentialInjector> {
    let proto::CredentialInjector { overwrite, allow_request_without_credential, credential } =
        cx.unpack(any)?;
    let credential = cx.required("credential", credential, |cx, value| {
        let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
        cx.within("typed_config", |cx| self::credential(cx, &any))
    })?;
    Some(CredentialInjector { overwrite, allow_without: allow_request_without_credential, credential })
}

fn credential(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Credential> {
    match type_name(any) {
        "envoy.extensions.http.injected_credentials.generic.v3.Generic" => {
            let generic::v3::Generic { credential, header, header_value_prefix } = cx.unpack(any)?;
            let header = match header.as_str() {
                "" => http::header::AUTHORIZATION,
                name => cx.ok("header", HeaderName::try_from(name))?,
            };
            let secret = cx.required("credential", credential, values::sds)?;
            Some(Credential::Generic { secret, header, prefix: header_value_prefix.into() })
        }
        "envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2" => {
            let value = cx.unpack(any)?;
            oauth2(cx, value).map(Credential::OAuth2)
        }
        other => {
            cx.error("", format_args!("there is no credential {other:?}"));
            None
        }
    }
}

fn oauth2(cx: &mut Cx<'_>, value: oauth2::v3::OAuth2) -> Option<OAuth2> {
    use oauth2::v3::o_auth2::{AuthType, ClientCredentials, FlowType};
    let oauth2::v3::OAuth2 { token_endpoint, scopes, token_fetch_retry_interval, endpoint_params, flow_type } =
        value;
    let endpoint = cx.required("token_endpoint", token_endpoint, http_uri);
    let Some(FlowType::ClientCredentials(credentials)) = flow_type else {
        cx.error("client_credentials", "it must be set");
        return None;
    };
    let ClientCredentials { client_id, client_secret, auth_type } = credentials;
    if client_id.is_empty() {
        cx.error("client_credentials.client_id", "it must be set");
    }
    let secret =
        cx.within("client_credentials", |cx| cx.required("client_secret", client_secret, values::sds));
    let retry = values::duration(cx, "token_fetch_retry_interval", token_fetch_retry_interval);
    if retry.is_some_and(|retry| retry < Duration::from_secs(1)) {
        cx.error("token_fetch_retry_interval", "it must be at least a second");
    }
    let params = cx.each("endpoint_params", endpoint_params, |cx, param| {
        if param.name.is_empty() {
            cx.error("name", "it must be set");
        }
        Some((param.name.into(), param.value.into()))
    });
    Some(OAuth2 {
        endpoint: endpoint?,
        scopes: arc(scopes.join(" ")),
        client_id: arc(client_id),
        client_secret: secret?,
        in_body: auth_type == AuthType::UrlEncodedBody as i32,
        retry: retry.unwrap_or(RETRY),
        params: params.into(),
    })
}
