//! `reviews`: what readers say. v1 shows no stars; v2 and v3 ask `ratings` and show them in black and in red.

use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};

use crate::catalog::{Rating, RatingsOf, Review, ReviewsOf};
use crate::forward::{Caller, inherited};
use crate::server::{Handler, Outgoing, Received, json, not_found, number_after};

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The stars to show.
    #[arg(long, value_enum, default_value_t = Stars::None, env = "STARS")]
    stars: Stars,
    /// Where ratings are asked for.
    #[arg(long, default_value = "http://ratings:9080", env = "RATINGS_URL")]
    ratings_url: String,
    /// The name shown as the one that served the reviews.
    #[arg(long, default_value = "", env = "HOSTNAME")]
    pod_name: String,
    /// The cluster shown beside it.
    #[arg(long, default_value = "", env = "CLUSTER_NAME")]
    cluster_name: String,
}

/// The versions of the service.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stars {
    /// v1: ratings are not asked for.
    None,
    /// v2.
    Black,
    /// v3.
    Red,
}

impl Stars {
    fn color(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Black => "black",
            Self::Red => "red",
        }
    }

    /// v2 waits longer than the product page waits for it. That is the flaw that the fault-injection task finds.
    fn patience(self) -> Duration {
        match self {
            Self::Black => Duration::from_secs(10),
            Self::None | Self::Red => Duration::from_millis(2500),
        }
    }
}

/// Answers `GET /reviews/ID`.
pub(crate) struct Reviews {
    options: Options,
    caller: Caller,
}

impl Reviews {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, caller: Caller::new() }
    }

    async fn of(&self, id: u32, headers: &HeaderMap) -> ReviewsOf {
        let ratings = self.ratings(id, headers).await;
        let rating = |reviewer: &str| match &ratings {
            None => None,
            Some(Err(error)) => Some(Rating::Failed { error: error.clone() }),
            Some(Ok(ratings)) => ratings
                .ratings
                .get(reviewer)
                .map(|stars| Rating::Stars { stars: *stars, color: self.options.stars.color().to_owned() }),
        };
        let review = |reviewer: &str, text: &str| Review {
            reviewer: reviewer.to_owned(),
            text: text.to_owned(),
            rating: rating(reviewer),
        };
        ReviewsOf {
            id: id.to_string(),
            podname: self.options.pod_name.clone(),
            clustername: self.options.cluster_name.clone(),
            reviews: vec![
                review("Reviewer1", "An extremely entertaining play. The slapstick never lets up!"),
                review("Reviewer2", "Great fun, though it lacks the depth of his later work."),
            ],
        }
    }

    /// `None` where no stars are shown, the reason where they cannot be had.
    async fn ratings(&self, id: u32, headers: &HeaderMap) -> Option<Result<RatingsOf, String>> {
        if self.options.stars == Stars::None {
            return None;
        }
        let url = format!("{}/ratings/{id}", self.options.ratings_url);
        let answer = self.caller.get(&url, &inherited(headers), self.options.stars.patience()).await;
        Some(answer.map_err(|error| {
            tracing::warn!("ratings: {error:#}");
            "Ratings service is currently unavailable".to_owned()
        }))
    }
}

impl Handler for Reviews {
    fn handle(&self, request: Received) -> BoxFuture<'_, Outgoing> {
        Box::pin(async move {
            let path = request.uri().path();
            match (request.method(), number_after(path, "/reviews/")) {
                (&Method::GET, Some(id)) => json(StatusCode::OK, &self.of(id, request.headers()).await),
                (method, _) => not_found(method, path),
            }
        })
    }
}
