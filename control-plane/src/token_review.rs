//! Service accounts' tokens, checked by the Kubernetes API server.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Api;
use kube::api::PostParams;
use saild_ca::authenticate::{Authenticator, Caller, Credentials, Means, Refusal};

const WHAT: &str = "the service account's token";
const SUBJECT_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Asks the API server.
pub(crate) struct Reviewer {
    reviews: Api<TokenReview>,
    audience: &'static str,
}

impl Reviewer {
    /// Takes tokens for an audience.
    pub(crate) fn new(client: kube::Client, audience: &'static str) -> Self {
        Self { reviews: Api::all(client), audience }
    }
}

#[async_trait]
impl Authenticator for Reviewer {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Caller>, Refusal> {
        let Some(token) = &credentials.bearer else { return Ok(None) };
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.to_owned()]),
                token: Some(token.clone()),
            },
            ..TokenReview::default()
        };
        let answer = self.reviews.create(&PostParams::default(), &review).await;
        let answer =
            answer.map_err(|error| Refusal::Unavailable { what: WHAT, reason: error.to_string() })?;
        let caller = read(&answer, self.audience);
        caller.map(Some).map_err(|reason| Refusal::Bad { what: WHAT, reason })
    }
}

fn read(review: &TokenReview, audience: &str) -> Result<Caller, String> {
    let status = review.status.as_ref().ok_or("the API server did not review it")?;
    if let Some(error) = status.error.as_ref().filter(|error| !error.is_empty()) {
        return Err(error.clone());
    }
    if status.authenticated != Some(true) {
        return Err("the API server does not know it".to_owned());
    }
    // An API server that knows nothing of audiences answers without: then the token is for the server itself.
    if !status.audiences.iter().flatten().any(|found| found == audience) {
        return Err(format!("it is not for the audience {audience}"));
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    let (namespace, account) = name
        .strip_prefix(SUBJECT_PREFIX)
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(|| format!("its user {name:?} is no service account"))?;
    let extra = user.and_then(|user| user.extra.as_ref());
    let pod = extra.and_then(|extra| extra.get(POD_NAME)).and_then(|names| names.first()).cloned();
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod,
        means: Means::Token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_counts_for_its_audience_only() {
        let review = |audience: &str, authenticated: bool| -> TokenReview {
            serde_json::from_value(json!({
                "spec": {},
                "status": {
                    "authenticated": authenticated, "audiences": [audience],
                    "user": {
                        "username": "system:serviceaccount:default:reviews",
                        "extra": {"authentication.kubernetes.io/pod-name": ["reviews-1"]},
                    },
                },
            }))
            .unwrap()
        };
        let caller = read(&review("istio-ca", true), "istio-ca").unwrap();
        assert_eq!((caller.service_account.as_str(), caller.pod.as_deref()), ("reviews", Some("reviews-1")));
        assert!(read(&review("other", true), "istio-ca").is_err());
        assert!(read(&review("istio-ca", false), "istio-ca").is_err());
    }
}
