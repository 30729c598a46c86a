//! `AdmissionReview` of `admission.k8s.io/v1`, as far as the webhooks read and write it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use saild_serve::http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
struct Review {
    request: Option<Admission>,
}

/// What an API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Admission {
    uid: String,
    /// `CREATE`, `UPDATE`, `DELETE`, …
    #[serde(default)]
    pub(crate) operation: String,
    /// The namespace of the object, which the object itself may lack.
    #[serde(default)]
    pub(crate) namespace: String,
    /// The object as it is to be.
    #[serde(default)]
    pub(crate) object: Value,
}

/// The answer.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Why not.
    pub(crate) refused: Option<String>,
    /// What the user is to be told.
    pub(crate) warnings: Vec<String>,
    /// Changes to the object, as JSON patch.
    pub(crate) patch: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

/// Reads a review, has it judged, and answers it.
pub(crate) fn answer(request: &Request, judge: impl FnOnce(&Admission) -> Verdict) -> Response {
    if request.method != http::Method::POST {
        return Response::of(http::StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview\n");
    }
    let review: Review = match serde_json::from_slice(&request.body) {
        Ok(review) => review,
        Err(error) => return Response::bad_request(format!("the body is no AdmissionReview: {error}\n")),
    };
    let Some(admission) = review.request else {
        return Response::bad_request("the AdmissionReview has no request\n");
    };
    let verdict = judge(&admission);
    let status = verdict
        .refused
        .as_ref()
        .map(|message| json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": message}));
    let answer = Answer {
        uid: admission.uid,
        allowed: status.is_none(),
        status,
        warnings: verdict.warnings,
        patch_type: verdict.patch.is_some().then_some("JSONPatch"),
        patch: verdict.patch.map(|patch| STANDARD.encode(patch.to_string())),
    };
    Response::compact_json(&json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": answer,
    }))
}
