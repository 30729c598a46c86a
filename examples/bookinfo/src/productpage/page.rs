//! The HTML of the product page. Everything that came from elsewhere is escaped.

use std::fmt::{self, Display, Write};

use super::Part;
use crate::catalog::{Book, Product, Rating, Review, ReviewsOf};

const STYLE: &str = include_str!("style.css");
const MOST_STARS: u32 = 5;

/// The entry page.
pub(super) fn welcome(product: &Product) -> String {
    frame(
        "Bookinfo",
        None,
        &format!(
            "<h1>Bookinfo</h1><p class=lead>A book shop of four services, for seeing what a service mesh does. \
             Today's book is <i>{}</i>.</p><p><a class=button href=/productpage>Open the product page</a></p>",
            Escaped(&product.title)
        ),
    )
}

/// The product page: a failed part becomes a panel that says so, and the rest stays.
pub(super) fn render(
    product: &Product,
    user: Option<&str>,
    details: &Part<Book>,
    reviews: &Part<ReviewsOf>,
) -> String {
    let body = format!(
        "<h1>{title}</h1><p class=lead>{description}</p><div class=columns>\
         <section class=card id=details><h2>Book details</h2>{details}</section>\
         <section class=card id=reviews><h2>Book reviews</h2>{reviews}</section></div>",
        title = Escaped(&product.title),
        description = Escaped(&product.description),
        details = details.as_ref().map_or_else(|error| failed("details", error), facts),
        reviews = reviews.as_ref().map_or_else(|error| failed("reviews", error), opinions),
    );
    frame(&product.title, Some(user), &body)
}

/// `who` is absent on pages without a sign-in, and otherwise says who is signed in, if anybody.
fn frame(title: &str, who: Option<Option<&str>>, body: &str) -> String {
    let who = match who {
        None => String::new(),
        Some(Some(user)) => {
            format!("<div class=who>{} <a class=button href=/logout>Sign out</a></div>", Escaped(user))
        }
        Some(None) => "<form method=post action=/login>\
                       <input name=username placeholder=\"User name\" aria-label=\"User name\" required>\
                       <button>Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <title>{} · Bookinfo</title><style>{STYLE}</style></head><body>\
         <header><div class=bar><a class=home href=/productpage>Bookinfo</a>{who}</div></header>\
         <main>{body}</main></body></html>\n",
        Escaped(title)
    )
}

fn failed(part: &str, error: &str) -> String {
    format!("<p class=failed role=alert><b>Error fetching product {part}</b><br>{}</p>", Escaped(error))
}

fn facts(book: &Book) -> String {
    let mut list = String::from("<dl>");
    let (year, pages) = (book.year.to_string(), book.pages.to_string());
    for (name, value) in [
        ("Author", book.author.as_str()),
        ("Year", &year),
        ("Type", &book.kind),
        ("Pages", &pages),
        ("Publisher", &book.publisher),
        ("Language", &book.language),
        ("ISBN-10", &book.isbn_10),
        ("ISBN-13", &book.isbn_13),
    ] {
        // Writing to a string cannot fail.
        let _ = write!(list, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    }
    list + "</dl>"
}

fn opinions(reviews: &ReviewsOf) -> String {
    let mut shown: String = reviews.reviews.iter().map(opinion).collect();
    let server = if reviews.podname.is_empty() { "an unnamed pod" } else { &reviews.podname };
    let _ = write!(shown, "<p class=served>Reviews served by <code>{}</code></p>", Escaped(server));
    shown
}

fn opinion(review: &Review) -> String {
    let stars = match &review.rating {
        None => String::new(),
        Some(Rating::Failed { error }) => {
            format!("<span class=\"failed small\" role=alert>{}</span>", Escaped(error))
        }
        Some(Rating::Stars { stars, color }) => {
            let lit = (*stars).min(MOST_STARS);
            format!(
                "<span class=\"stars {}\" aria-label=\"{lit} of {MOST_STARS} stars\">{}<span class=off>{}</span></span>",
                Escaped(color),
                "★".repeat(lit as usize),
                "★".repeat((MOST_STARS - lit) as usize)
            )
        }
    };
    format!(
        "<blockquote><p>{}</p><footer><span>{}</span>{stars}</footer></blockquote>",
        Escaped(&review.text),
        Escaped(&review.reviewer)
    )
}

/// Text as HTML shows it, in content and in quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::products;

    #[test]
    fn parts_fail_one_by_one_and_what_came_from_elsewhere_is_escaped() {
        let reviews = ReviewsOf {
            id: "0".to_owned(),
            podname: "<script>".to_owned(),
            clustername: String::new(),
            reviews: vec![Review {
                reviewer: "A".to_owned(),
                text: "B".to_owned(),
                rating: Some(Rating::Stars { stars: 9, color: "red".to_owned() }),
            }],
        };
        let page = render(&products()[0], Some("jason"), &Err("gone".to_owned()), &Ok(reviews));
        assert!(page.contains("Error fetching product details") && page.contains("5 of 5 stars"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
