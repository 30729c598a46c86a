//! From RE2's syntax, which Envoy's configuration has, to that of the `regex` crate: where a character means something in
//! only one of them.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// The same expression in the crate's words; what RE2 would refuse may pass.
pub(super) fn translated(source: &str) -> Cow<'_, str> {
    // All that the two read differently stands behind one of these.
    if !source.contains(['[', '\\', '{']) {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len() + 8);
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out),
            '[' => class(&mut rest, &mut out),
            '{' if !is_repetition(&rest) => out.push_str("\\{"),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// What follows a backslash outside of a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        // The crate has words' ends here; RE2 has the character.
        Some(c @ ('<' | '>')) => out.push(c),
        Some('C') => out.push_str("(?s-u:.)"),
        Some('Q') => quoted(rest, out),
        Some(c @ ('p' | 'P' | 'x')) => {
            out.extend(['\\', c]);
            // A name or a number may stand in braces.
            if rest.peek() == Some(&'{') {
                for c in rest.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
        }
        Some(other) => out.extend(['\\', other]),
        None => out.push('\\'),
    }
}

/// `\Q…\E`: as it stands.
fn quoted(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    for c in rest.by_ref() {
        text.push(c);
        if text.ends_with("\\E") {
            text.truncate(text.len() - 2);
            break;
        }
    }
    out.push_str(&regex::escape(&text));
}

/// Whether what follows a `{` makes it a repetition: `n}`, `n,}` or `n,m}`.
fn is_repetition(rest: &Peekable<Chars<'_>>) -> bool {
    let inner: String = rest.clone().take_while(|c| *c != '}').collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let closed = rest.clone().nth(inner.chars().count()) == Some('}');
    closed
        && match inner.split_once(',') {
            None => is_number(&inner),
            Some((from, to)) => is_number(from) && (to.is_empty() || is_number(to)),
        }
}

/// A class, whose `[` was read. The crate nests classes and has operators (`&&`, `--`, `~~`); RE2 has neither.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
        range(rest, out);
    }
    while let Some(c) = rest.next() {
        if c == ']' {
            out.push(']');
            return;
        }
        if c == '[' && named(rest, out) {
            continue;
        }
        item(c, rest, out);
        range(rest, out);
    }
}

/// The rest of a range, if the item before it begins one.
fn range(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut ahead = rest.clone();
    if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']')) {
        return;
    }
    rest.next();
    out.push('-');
    if let Some(end) = rest.next() {
        item(end, rest, out);
    }
}

/// One character, or what a backslash makes of it.
fn item(c: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match c {
        '\\' => escape(rest, out),
        '[' | '&' | '~' | '-' => out.extend(['\\', c]),
        other => out.push(other),
    }
}

/// `[:alpha:]`, whose `[` was read.
fn named(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> bool {
    if rest.peek() != Some(&':') {
        return false;
    }
    let name: String = rest.clone().take_while(|c| *c != ']').collect();
    let is_name = name.len() > 2 && name.ends_with(':');
    if is_name {
        out.extend(["[", &name, "]"]);
        rest.nth(name.chars().count());
    }
    is_name
}

#[cfg(test)]
mod tests {
    use crate::matcher::FullRegex;

    /// As Envoy 1.40 matches.
    #[test]
    fn characters_mean_what_they_mean_in_re2() {
        let check = |source: &str, matches: &[&str], others: &[&str]| {
            let regex = FullRegex::new(source).unwrap();
            for text in matches {
                assert!(regex.is_match(text.as_bytes()), "{source} and {text}");
            }
            for text in others {
                assert!(!regex.is_match(text.as_bytes()), "{source} and {text}");
            }
        };
        check("[a&&b]+", &["a", "b", "&"], &["c"]);
        check("[[a]b]", &["[b]", "ab]"], &["a", "b"]);
        check("[^[a]", &["b"], &["[", "a"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[a~~b]", &["a", "~", "b"], &["c"]);
        check("[+--]", &["+", ",", "-"], &["."]);
        check("[a-]", &["a", "-"], &["b"]);
        check(r"[\w\-.]+", &["a-b.c"], &["a/b"]);
        check("[[:alpha:]_-]+", &["a_-"], &["1"]);
        check("/a{b}c{,2}", &["/a{b}c{,2}"], &["/ab"]);
        check("a{2}b{1,}c{0,1}", &["aabc", "aabb"], &["abc"]);
        check(r"\Qa.b[\E+", &["a.b[", "a.b[["], &["axb["]);
        check(r"\<b\>", &["<b>"], &["b"]);
        check(r"a\Cb", &["a\nb", "axb"], &["ab"]);
        check(r"\p{Greek}\x{41}", &["λA"], &["A"]);
        check(r"\d{3}-[0-9]{2}", &["123-45"], &["12-345"]);
    }
}
