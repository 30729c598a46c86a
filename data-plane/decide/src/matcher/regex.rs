//! Regular expressions as Envoy's RE2 reads them: `\d`, `\w`, `\s` and `\b` are ASCII, a match covers the whole input.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// The regular expression does not compile.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRegex {
    message: String,
}

/// A regular expression that must match the whole of its input.
#[derive(Clone)]
pub struct FullRegex {
    source: Box<str>,
    regex: Regex,
}

impl FullRegex {
    /// Compiles it.
    pub fn new(source: &str) -> Result<Self, InvalidRegex> {
        // Checked alone first: a stray `)` could otherwise close the group that is put around it.
        compile(source)?;
        Ok(Self { source: source.into(), regex: compile(&format!(r"\A(?:{source})\z"))? })
    }

    /// Whether the whole input matches.
    pub fn is_match(&self, input: &[u8]) -> bool {
        self.regex.is_match(input)
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for FullRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn compile(source: &str) -> Result<Regex, InvalidRegex> {
    let translated = super::re2::translated(source);
    let build = |unicode| RegexBuilder::new(&translated).unicode(unicode).size_limit(1 << 20).build();
    // Bytes first, for RE2's ASCII classes; Unicode for what only it has, such as `\p{Greek}`.
    build(false).or_else(|_| build(true)).map_err(|error| invalid(source, &error.to_string()))
}

/// The compiler draws its error over several lines; the last one says it.
fn invalid(source: &str, drawn: &str) -> InvalidRegex {
    let problem = drawn.lines().last().unwrap_or_default();
    InvalidRegex { message: format!("{source:?}: {}", problem.strip_prefix("error: ").unwrap_or(problem)) }
}

/// `RegexMatchAndSubstitute`: every match replaced, with `\1` for groups.
#[derive(Clone)]
pub struct RegexRewrite {
    regex: Regex,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Box<str>),
    Group(usize),
}

impl RegexRewrite {
    /// Compiles pattern and substitution.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, InvalidRegex> {
        let regex = compile(pattern)?;
        let parts = parts(substitution)?;
        for part in &parts {
            if let Part::Group(group) = part
                && *group >= regex.captures_len()
            {
                let message =
                    format!("the substitution names group {group}, which the pattern does not have");
                return Err(InvalidRegex { message });
            }
        }
        Ok(Self { regex, parts: parts.into() })
    }

    /// The input with all matches replaced.
    pub fn rewrite(&self, input: &str) -> String {
        let replaced = self.regex.replace_all(input.as_bytes(), |captures: &regex::bytes::Captures<'_>| {
            let mut out = Vec::new();
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Group(group) => {
                        out.extend_from_slice(captures.get(*group).map_or(&[][..], |found| found.as_bytes()));
                    }
                }
            }
            out
        });
        String::from_utf8_lossy(&replaced).into_owned()
    }
}

impl fmt::Debug for RegexRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/ -> {:?}", self.regex.as_str(), self.parts)
    }
}

fn parts(substitution: &str) -> Result<Vec<Part>, InvalidRegex> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => text.push('\\'),
            Some(digit) if digit.is_ascii_digit() => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(Part::Group(usize::from(digit as u8 - b'0')));
            }
            _ => {
                return Err(InvalidRegex {
                    message: format!(
                        "substitution {substitution:?}: a backslash must be followed by a digit or a backslash"
                    ),
                });
            }
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_cover_the_whole_input() {
        let full = FullRegex::new("a|ab").unwrap();
        assert!(full.is_match(b"ab"));
        assert!(!full.is_match(b"abc"));
        assert!(!FullRegex::new(r"\d+").unwrap().is_match("٣".as_bytes()));
        assert!(FullRegex::new("a)(b").is_err());
        assert!(FullRegex::new(r"\p{Greek}").unwrap().is_match("λ".as_bytes()));
    }

    #[test]
    fn groups_are_substituted() {
        let rewrite = |pattern, with, input| RegexRewrite::new(pattern, with).unwrap().rewrite(input);
        assert_eq!(
            rewrite("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api"),
            "/v1/api/instance/foo"
        );
        assert_eq!(rewrite("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(rewrite("x", r"\\", "axb"), r"a\b");
        assert!(RegexRewrite::new("a", r"\1").is_err());
        assert!(RegexRewrite::new("a", r"\x").is_err());
    }
}
