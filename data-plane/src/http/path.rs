//! Puts a request's path into the one form that routing and policy see, and that goes upstream: what a policy judged
//! is what the application gets.

use std::borrow::Cow;

/// What happens to `%2F` and `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    /// Answered with a redirect to the unescaped path.
    Redirect,
    Forward,
}

/// Which steps are taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// Dot segments are resolved, needless escapes undone.
    pub(crate) normalize: bool,
    pub(crate) merge_slashes: bool,
    pub(crate) escaped_slashes: EscapedSlashes,
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// To be used from here on.
    Path(Cow<'a, str>),
    /// The client is to ask for this instead.
    Redirect(String),
    /// No path of an honest client.
    Reject,
}

/// Applies the rules to a path with its query, which stays as it is.
pub(crate) fn normalize(target: &str, rules: Rules) -> Outcome<'_> {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut path = Cow::Borrowed(path);
    let mut redirect = false;
    if rules.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(&path)
    {
        match rules.escaped_slashes {
            EscapedSlashes::Reject => return Outcome::Reject,
            EscapedSlashes::Redirect => redirect = true,
            EscapedSlashes::Keep | EscapedSlashes::Forward => {}
        }
        path = Cow::Owned(unescaped);
    }
    if rules.normalize {
        match resolve(&path) {
            None => return Outcome::Reject,
            Some(Cow::Borrowed(_)) => {}
            Some(Cow::Owned(resolved)) => path = Cow::Owned(resolved),
        }
    }
    if rules.merge_slashes && path.contains("//") {
        path = Cow::Owned(merge(&path));
    }
    match path {
        Cow::Borrowed(_) => Outcome::Path(Cow::Borrowed(target)),
        Cow::Owned(path) if redirect => Outcome::Redirect(path + query),
        Cow::Owned(path) => Outcome::Path(Cow::Owned(path + query)),
    }
}

fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let slash = match escape.get(..3) {
            Some(code) if code.eq_ignore_ascii_case("%2f") => Some('/'),
            Some(code) if code.eq_ignore_ascii_case("%5c") => Some('\\'),
            _ => None,
        };
        out.push(slash.unwrap_or('%'));
        rest = &escape[if slash.is_some() { 3 } else { 1 }..];
    }
    out.push_str(rest);
    (out.len() != path.len()).then_some(out)
}

/// Undoes escapes of unreserved characters, turns back-slashes, resolves dot segments. `None` for a path that does not
/// begin with a slash, or with a null byte, escaped or not.
fn resolve(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        return None;
    }
    let plain =
        |byte: u8| !matches!(byte, b'%' | b'\\' | b'.' | b'#' | b'"' | b'<' | b'>' | b'`' | b'{' | b'}');
    if path.bytes().all(|byte| plain(byte) && byte.is_ascii_graphic()) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = unescape_unreserved(path)?;
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push('/'),
            "." => {}
            ".." => {
                out.truncate(out.rfind('/').unwrap_or(0));
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if out == path { Some(Cow::Borrowed(path)) } else { Some(Cow::Owned(out)) }
}

fn unescape_unreserved(path: &str) -> Option<String> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index).copied() {
        index += 1;
        match byte {
            0 => return None,
            b'\\' => out.push('/'),
            b'%' => match escaped(&bytes[index..]) {
                Some(0) => return None,
                Some(byte) if is_unreserved(byte) && !ends_in_open_escape(&out) => {
                    out.push(char::from(byte));
                    index += 2;
                }
                _ => out.push('%'),
            },
            b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | 0x80.. | ..=b' ' | 0x7f => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
            _ => out.push(char::from(byte)),
        }
    }
    Some(out)
}

/// The byte of an escape, after its `%`.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether one more character could make an escape of a `%` that has none: nobody who reads the path once may find in
/// the result what the client did not write.
fn ends_in_open_escape(out: &str) -> bool {
    match out.as_bytes() {
        [.., b'%'] => true,
        [.., b'%', digit] => digit.is_ascii_hexdigit(),
        _ => false,
    }
}

fn merge(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !out.ends_with('/') {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rules =
        Rules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::Forward };
    const NORMALIZE: Rules =
        Rules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    fn check(rules: Rules, path: &str, expect: &str) {
        assert_eq!(normalize(path, rules), Outcome::Path(Cow::Owned(expect.to_owned())), "{path}");
    }

    #[test]
    fn no_escape_is_made_of_others() {
        for path in ["/%%32f", "/%2%66x", "/%2%35", "/%%2e%2"] {
            check(NORMALIZE, path, path);
        }
        // What follows an escape that stays is not part of it.
        check(NORMALIZE, "/%%36%31dmin", "/%%361dmin");
    }

    #[test]
    fn one_form_for_one_resource() {
        check(NORMALIZE, "/a/b?x=/../y", "/a/b?x=/../y");
        check(NORMALIZE, "/a/./b/../c", "/a/c");
        check(NORMALIZE, "/a/b/..", "/a/");
        check(NORMALIZE, "/..%2e/", "/.../");
        check(NORMALIZE, "/a/%2E%2e/c", "/c");
        check(NORMALIZE, "/../../etc", "/etc");
        check(NORMALIZE, "/a\\b", "/a/b");
        check(NORMALIZE, "/%61dmin", "/admin");
        check(NORMALIZE, "/a%2Fb", "/a%2Fb");
        check(NORMALIZE, "/a//b", "/a//b");
        check(NORMALIZE, "/.well-known/x.y", "/.well-known/x.y");
        check(NORMALIZE, "/100%", "/100%");
        check(NORMALIZE, "/100%/%2e", "/100%/");
        check(ALL, "/a%2F%2fb//c?d//e", "/a/b/c?d//e");
        check(ALL, "/a%5Cb", "/a/b");
        check(Rules::default(), "/a/../b", "/a/../b");
    }

    #[test]
    fn refuses_and_redirects() {
        let rules = |escaped_slashes| Rules { escaped_slashes, ..Rules::default() };
        assert_eq!(normalize("/a%2fb", rules(EscapedSlashes::Reject)), Outcome::Reject);
        assert_eq!(
            normalize("/a%2fb?c", rules(EscapedSlashes::Redirect)),
            Outcome::Redirect("/a/b?c".into())
        );
        assert_eq!(normalize("/a%00", NORMALIZE), Outcome::Reject);
        assert_eq!(normalize("a", NORMALIZE), Outcome::Reject);
    }
}
