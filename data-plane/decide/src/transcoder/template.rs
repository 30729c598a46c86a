//! Path templates of `google.api.http`, and the paths that match them.

use std::cmp::Ordering;

use percent_encoding::percent_decode_str;

/// A part of a path between slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `*`
    Any,
    /// `**`: any number of them.
    Rest,
}

/// A variable, and the segments that are its value.
#[derive(Debug)]
struct Variable {
    field: String,
    start: usize,
    end: usize,
}

/// `/v1/{name=shelves/*}:read`
#[derive(Debug)]
pub struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// After the last colon.
    pub(super) verb: Option<String>,
}

/// `UrlUnescapeSpec`, which holds for variables of more than one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unescape {
    /// RFC 6570's reserved characters stay as they are.
    #[default]
    AllExceptReserved,
    /// Slashes stay as they are.
    AllExceptSlash,
    /// All of them.
    All,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is not a path template: {why}");
        let rest = text.strip_prefix('/').ok_or_else(|| bad("it must begin with a slash"))?;
        // A colon within braces is none of a verb's.
        let after = rest.rfind('}').map_or(0, |at| at + 1).max(rest.rfind('/').map_or(0, |at| at + 1));
        let (path, verb) = match rest[after..].rsplit_once(':') {
            Some((before, verb)) => (&rest[..after + before.len()], Some(verb.to_owned())),
            None => (rest, None),
        };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb };
        let mut left = path;
        while !left.is_empty() {
            left = match left.strip_prefix('{') {
                Some(inside) => {
                    let (variable, after) = inside.split_once('}').ok_or_else(|| bad("a brace is open"))?;
                    let (field, value) = variable.split_once('=').unwrap_or((variable, "*"));
                    let start = template.segments.len();
                    value.split('/').for_each(|part| template.push(part));
                    let end = template.segments.len();
                    template.variables.push(Variable { field: field.to_owned(), start, end });
                    after
                }
                None => {
                    let end = left.find('/').unwrap_or(left.len());
                    template.push(&left[..end]);
                    &left[end..]
                }
            };
            if !left.is_empty() {
                left = left.strip_prefix('/').ok_or_else(|| bad("a slash is missing"))?;
            }
        }
        if template.segments.iter().filter(|segment| **segment == Segment::Rest).count() > 1 {
            return Err(bad("** may be there once"));
        }
        Ok(template)
    }

    fn push(&mut self, part: &str) {
        self.segments.push(match part {
            "*" => Segment::Any,
            "**" => Segment::Rest,
            literal => Segment::Literal(literal.to_owned()),
        });
    }

    /// The names of fields that the path gives values to.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| &*variable.field)
    }

    /// The values of its variables, if these segments match.
    pub fn matches(&self, parts: &[&str], unescape: Unescape) -> Option<Vec<(&str, String)>> {
        let rest = self.segments.iter().position(|segment| *segment == Segment::Rest);
        let enough = match rest {
            Some(_) => parts.len() + 1 >= self.segments.len(),
            None => parts.len() == self.segments.len(),
        };
        if !enough {
            return None;
        }
        // How many parts stand for `**`, and so how far behind it the parts are shifted.
        let many = (parts.len() + 1).saturating_sub(self.segments.len());
        let place = |segment: usize| match rest {
            Some(rest) if segment > rest => segment + many - 1,
            _ => segment,
        };
        for (index, segment) in self.segments.iter().enumerate() {
            let matches = match segment {
                Segment::Rest => true,
                Segment::Any => parts.get(place(index)).is_some_and(|part| !part.is_empty()),
                Segment::Literal(text) => parts.get(place(index)) == Some(&&**text),
            };
            if !matches {
                return None;
            }
        }
        let values = self.variables.iter().map(|variable| {
            let last_is_rest = rest.is_some_and(|rest| rest + 1 == variable.end);
            let end = if last_is_rest { place(variable.end - 1) + many } else { place(variable.end - 1) + 1 };
            let several = variable.end - variable.start > 1 || last_is_rest;
            let of = parts.get(place(variable.start)..end).unwrap_or_default();
            let spec = if several { unescape } else { Unescape::All };
            let value: Vec<_> = of.iter().map(|part| unescaped(part, spec)).collect();
            (&*variable.field, value.join("/"))
        });
        Some(values.collect())
    }

    /// Which of two templates says more: literals before `*` before `**`, from the left.
    pub fn compare(&self, other: &Self) -> Ordering {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Any => 1,
            Segment::Rest => 2,
        };
        self.segments.iter().map(rank).cmp(other.segments.iter().map(rank))
    }
}

fn unescaped(text: &str, spec: Unescape) -> String {
    if spec == Unescape::All {
        return percent_decode_str(text).decode_utf8_lossy().into_owned();
    }
    let stays = |byte: u8| match spec {
        Unescape::AllExceptReserved => b"!#$&'()*+,/:;=?@[]".contains(&byte),
        _ => byte == b'/',
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match decoded {
            Some(byte) if !stays(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, path: &str, expected: Option<&[(&str, &str)]>) {
        let template = Template::parse(template).unwrap();
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let found = template.matches(&parts, Unescape::default());
        let found: Option<Vec<_>> =
            found.as_ref().map(|all| all.iter().map(|(name, value)| (*name, &**value)).collect());
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn variables_have_their_segments() {
        check("/v1/shelves", "/v1/shelves", Some(&[]));
        check("/v1/shelves/{shelf}", "/v1/shelves/7", Some(&[("shelf", "7")]));
        check("/v1/shelves/{shelf}", "/v1/shelves/7/x", None);
        check(
            "/v1/{name=shelves/*}/b/{b.c}",
            "/v1/shelves/7/b/a%2Fb",
            Some(&[("name", "shelves/7"), ("b.c", "a/b")]),
        );
        check(
            "/foo/{x=*}/bar/{y=prefix/*}/{z=**}",
            "/foo/first/bar/prefix/second/third/fourth",
            Some(&[("x", "first"), ("y", "prefix/second"), ("z", "third/fourth")]),
        );
        check("/a/{x=**}/z", "/a/b/c/z", Some(&[("x", "b/c")]));
        check("/a/{x=**}/{y}", "/a/b%2f/c%20/d", Some(&[("x", "b%2f/c "), ("y", "d")]));
        check("/a/**", "/a", Some(&[]));
    }

    #[test]
    fn verbs_stand_at_the_end() {
        assert_eq!(Template::parse("/v1/{a=b/*}:read").unwrap().verb.as_deref(), Some("read"));
        assert_eq!(Template::parse("/v1/{a}").unwrap().verb, None);
        assert!(Template::parse("v1").is_err());
        assert!(Template::parse("/{a").is_err());
        assert!(Template::parse("/**/x/**").is_err());
    }

    #[test]
    fn escapes_follow_the_specification() {
        let text = "%2f%23%20%2523";
        assert_eq!(unescaped(text, Unescape::AllExceptReserved), "%2f%23 %23");
        assert_eq!(unescaped(text, Unescape::AllExceptSlash), "%2f# %23");
        assert_eq!(unescaped(text, Unescape::All), "/# %23");
        assert_eq!(unescaped("%", Unescape::AllExceptSlash), "%");
    }
}
