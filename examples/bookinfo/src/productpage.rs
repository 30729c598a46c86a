//! `productpage`: the page that a person sees, and the same data as JSON under `/api/v1/products`.

mod page;
mod session;

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::catalog::{Book, Product, RatingsOf, ReviewsOf, products};
use crate::forward::{Caller, inherited};
use crate::server::{Handler, Outgoing, Received, html, json, not_found};

/// A call that takes longer has failed; reviews are asked for twice.
const PATIENCE: Duration = Duration::from_secs(3);
const REVIEW_ATTEMPTS: usize = 2;

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// Where details are asked for.
    #[arg(long, default_value = "http://details:9080", env = "DETAILS_URL")]
    details_url: String,
    /// Where reviews are asked for.
    #[arg(long, default_value = "http://reviews:9080", env = "REVIEWS_URL")]
    reviews_url: String,
    /// Where ratings are asked for.
    #[arg(long, default_value = "http://ratings:9080", env = "RATINGS_URL")]
    ratings_url: String,
}

/// The page and its API.
pub(crate) struct ProductPage {
    options: Options,
    caller: Caller,
}

/// A part of the page: what it shows, or what to tell the reader in its place.
type Part<T> = Result<T, String>;

impl ProductPage {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, caller: Caller::new() }
    }

    async fn page(&self, request: &Received) -> Outgoing {
        let user = session::user(request.headers());
        let headers = on_behalf_of(request.headers(), user.as_deref());
        let product = &products()[0];
        let (details, reviews) =
            tokio::join!(self.details(product.id, &headers), self.reviews(product.id, &headers));
        html(StatusCode::OK, page::render(product, user.as_deref(), &details, &reviews))
    }

    async fn details(&self, id: u32, headers: &HeaderMap) -> Part<Book> {
        let url = format!("{}/details/{id}", self.options.details_url);
        self.caller.get(&url, headers, PATIENCE).await.map_err(|error| {
            tracing::warn!("details: {error:#}");
            "Sorry, product details are currently unavailable for this book.".to_owned()
        })
    }

    async fn reviews(&self, id: u32, headers: &HeaderMap) -> Part<ReviewsOf> {
        let url = format!("{}/reviews/{id}", self.options.reviews_url);
        for _ in 0..REVIEW_ATTEMPTS {
            match self.caller.get(&url, headers, PATIENCE).await {
                Ok(reviews) => return Ok(reviews),
                Err(error) => tracing::warn!("reviews: {error:#}"),
            }
        }
        Err("Sorry, product reviews are currently unavailable for this book.".to_owned())
    }

    async fn ratings(&self, id: u32, headers: &HeaderMap) -> Part<RatingsOf> {
        let url = format!("{}/ratings/{id}", self.options.ratings_url);
        self.caller.get(&url, headers, PATIENCE).await.map_err(|error| {
            tracing::warn!("ratings: {error:#}");
            "Sorry, product ratings are currently unavailable for this book.".to_owned()
        })
    }

    async fn api(&self, path: &str, request: &Received) -> Outgoing {
        let headers = on_behalf_of(request.headers(), session::user(request.headers()).as_deref());
        let mut steps = path.trim_matches('/').split('/');
        let Some(id) = steps.next().filter(|id| !id.is_empty()) else {
            return json(StatusCode::OK, &products());
        };
        let Some(product) =
            id.parse().ok().and_then(|id: u32| products().into_iter().find(|known| known.id == id))
        else {
            return json(StatusCode::NOT_FOUND, &serde_json::json!({"error": "no such product"}));
        };
        match (steps.next(), steps.next()) {
            (None, _) => part(self.details(product.id, &headers).await),
            (Some("reviews"), None) => part(self.reviews(product.id, &headers).await),
            (Some("ratings"), None) => part(self.ratings(product.id, &headers).await),
            _ => not_found(request.method(), request.uri().path()),
        }
    }
}

impl Handler for ProductPage {
    fn handle(&self, request: Received) -> BoxFuture<'_, Outgoing> {
        Box::pin(async move {
            let path = request.uri().path();
            match (request.method(), path) {
                (&Method::GET, "/") => html(StatusCode::OK, page::welcome(&products()[0] as &Product)),
                (&Method::GET, "/productpage") => self.page(&request).await,
                (&Method::POST, "/login") => back(Some(session::sign_in(request.body()))),
                (&Method::GET, "/logout") => back(Some(session::sign_out())),
                (&Method::GET, _) => match path.strip_prefix("/api/v1/products") {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => self.api(rest, &request).await,
                    _ => not_found(request.method(), path),
                },
                (method, _) => not_found(method, path),
            }
        })
    }
}

/// The headers of calls made for a request; a signed-in user goes along as `end-user`.
fn on_behalf_of(headers: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut forwarded = inherited(headers);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        forwarded.insert("end-user", value);
    }
    forwarded
}

fn part<T: serde::Serialize>(part: Part<T>) -> Outgoing {
    match part {
        Ok(body) => json(StatusCode::OK, &body),
        Err(error) => json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": error })),
    }
}

fn back(cookie: Option<HeaderValue>) -> Outgoing {
    let mut response = Response::new(http_body_util::Full::default());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
