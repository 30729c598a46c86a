//! `envoy.type.matcher.v3.StringMatcher`.

use memchr::memmem;

use super::FullRegex;

/// A string matcher.
#[derive(Clone, Debug, PartialEq)]
pub struct StringMatcher {
    /// What to compare with; lower-case already if case is ignored.
    pub pattern: StringMatch,
    /// Whether ASCII case is ignored; never for regular expressions.
    pub ignore_case: bool,
}

/// The kinds of string match.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatch {
    /// The whole string.
    Exact(Box<str>),
    /// How it begins.
    Prefix(Box<str>),
    /// How it ends.
    Suffix(Box<str>),
    /// What it contains.
    Contains(Box<str>),
    /// A regular expression for the whole string.
    Regex(FullRegex),
}

impl StringMatcher {
    /// A matcher with the pattern folded if case is ignored.
    pub fn new(pattern: StringMatch, ignore_case: bool) -> Self {
        if !ignore_case {
            return Self { pattern, ignore_case };
        }
        let fold = |text: Box<str>| text.to_ascii_lowercase().into_boxed_str();
        let pattern = match pattern {
            StringMatch::Exact(text) => StringMatch::Exact(fold(text)),
            StringMatch::Prefix(text) => StringMatch::Prefix(fold(text)),
            StringMatch::Suffix(text) => StringMatch::Suffix(fold(text)),
            StringMatch::Contains(text) => StringMatch::Contains(fold(text)),
            StringMatch::Regex(regex) => {
                return Self { pattern: StringMatch::Regex(regex), ignore_case: false };
            }
        };
        Self { pattern, ignore_case }
    }

    /// An exact, case-sensitive match.
    pub fn exact(text: &str) -> Self {
        Self::new(StringMatch::Exact(text.into()), false)
    }

    /// A case-sensitive prefix.
    pub fn prefix(text: &str) -> Self {
        Self::new(StringMatch::Prefix(text.into()), false)
    }

    /// Whether the input matches.
    pub fn is_match(&self, input: &[u8]) -> bool {
        let same = |left: &[u8], right: &str| {
            if self.ignore_case {
                left.eq_ignore_ascii_case(right.as_bytes())
            } else {
                left == right.as_bytes()
            }
        };
        match &self.pattern {
            StringMatch::Exact(text) => same(input, text),
            StringMatch::Prefix(text) => input.get(..text.len()).is_some_and(|head| same(head, text)),
            StringMatch::Suffix(text) => {
                input.len().checked_sub(text.len()).is_some_and(|start| same(&input[start..], text))
            }
            StringMatch::Contains(text) if self.ignore_case => {
                text.is_empty() || input.windows(text.len()).any(|window| same(window, text))
            }
            StringMatch::Contains(text) => memmem::find(input, text.as_bytes()).is_some(),
            StringMatch::Regex(regex) => regex.is_match(input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind() {
        let check = |pattern: StringMatch, fold, yes: &[&str], no: &[&str]| {
            let matcher = StringMatcher::new(pattern, fold);
            for input in yes {
                assert!(matcher.is_match(input.as_bytes()), "{matcher:?} should match {input:?}");
            }
            for input in no {
                assert!(!matcher.is_match(input.as_bytes()), "{matcher:?} should not match {input:?}");
            }
        };
        check(StringMatch::Exact("Ab".into()), false, &["Ab"], &["ab", "Abc", ""]);
        check(StringMatch::Exact("Ab".into()), true, &["Ab", "aB"], &["abc"]);
        check(StringMatch::Prefix("Ab".into()), true, &["abc", "AB"], &["a", "cab"]);
        check(StringMatch::Suffix("Ab".into()), true, &["cab", "AB"], &["b", "abc"]);
        check(StringMatch::Contains("bC".into()), true, &["aBcd"], &["b", ""]);
        check(StringMatch::Contains("bc".into()), false, &["abcd"], &["aBcd"]);
        check(StringMatch::Regex(FullRegex::new("a.c").unwrap()), true, &["abc"], &["abcd", "ABC"]);
    }
}
