//! What the services say to one another, and the one book that they know.

use serde::{Deserialize, Serialize};

/// A product of the shop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: u32,
    pub(crate) title: String,
    #[serde(rename = "descriptionHtml")]
    pub(crate) description: String,
}

/// What `details` knows about a book.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) id: u32,
    pub(crate) author: String,
    pub(crate) year: u32,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) pages: u32,
    pub(crate) publisher: String,
    pub(crate) language: String,
    #[serde(rename = "ISBN-10")]
    pub(crate) isbn_10: String,
    #[serde(rename = "ISBN-13")]
    pub(crate) isbn_13: String,
}

/// The stars of a review, or why there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Rating {
    Stars { stars: u32, color: String },
    Failed { error: String },
}

/// One reader's words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Review {
    pub(crate) reviewer: String,
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rating: Option<Rating>,
}

/// What `reviews` answers; the pod's name shows which version did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReviewsOf {
    pub(crate) id: String,
    pub(crate) podname: String,
    pub(crate) clustername: String,
    pub(crate) reviews: Vec<Review>,
}

/// What `ratings` answers: stars by reviewer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RatingsOf {
    pub(crate) id: u32,
    pub(crate) ratings: std::collections::BTreeMap<String, u32>,
}

/// The shop's products.
pub(crate) fn products() -> Vec<Product> {
    vec![Product {
        id: 0,
        title: "The Comedy of Errors".to_owned(),
        description:
            "Two pairs of twins, parted in a shipwreck, come to the same town on the same day, and nobody \
                      can tell who is talking to whom. One of Shakespeare's earliest plays, and his shortest."
                .to_owned(),
    }]
}
