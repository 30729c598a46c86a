//! Who is signed in: a name in a cookie. Nothing is protected by it; it only decides the `end-user` header, so there
//! is no password to check.

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const COOKIE: &str = "session=";
/// Longer names are cut: the name becomes a header of every call.
const LONGEST: usize = 64;

/// The name in a request's cookie.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let encoded =
        cookies.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE))?;
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    (!name.is_empty()).then(|| name.into_owned())
}

/// The cookie for the `username` of a form.
pub(super) fn sign_in(form: &[u8]) -> HeaderValue {
    let form = String::from_utf8_lossy(form);
    let field =
        form.split('&').find_map(|pair| pair.strip_prefix("username=")).unwrap_or_default().replace('+', " ");
    let name: String = percent_decode_str(&field).decode_utf8_lossy().trim().chars().take(LONGEST).collect();
    cookie(&utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string(), "")
}

/// The cookie that ends the session.
pub(super) fn sign_out() -> HeaderValue {
    cookie("", "; Max-Age=0")
}

fn cookie(value: &str, lifetime: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{COOKIE}{value}; Path=/; HttpOnly; SameSite=Lax{lifetime}"))
        .expect("a percent-encoded name has only visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(form: &str) -> Option<String> {
        let cookie = sign_in(form.as_bytes());
        let mut headers = HeaderMap::new();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        headers.insert(header::COOKIE, format!("theme=dark; {pair}").parse().unwrap());
        user(&headers)
    }

    #[test]
    fn the_name_of_the_form_comes_back() {
        assert_eq!(round_trip("username=jason&passwd=x").as_deref(), Some("jason"));
        assert_eq!(round_trip("passwd=&username=J%C3%BCrgen+%3B%0d%0a").as_deref(), Some("Jürgen ;"));
        assert_eq!(round_trip("passwd=x"), None);
    }
}
