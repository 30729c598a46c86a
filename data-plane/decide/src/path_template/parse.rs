//! Templates as Envoy reads them, as regular expressions.

use std::fmt::Write;

/// What a template may be made of, as bytes.
const LONGEST: usize = 256;
const LONGEST_NAME: usize = 16;
const MOST_VARIABLES: usize = 5;

/// Any character of a segment, as a class of a regular expression.
const CLASS: &str = "a-zA-Z0-9._~%!$&'()+,;:@=*-";

type Problem = &'static str;

/// The regular expression of a template, whose variables are named groups.
pub(super) fn to_regex(template: &str) -> Result<String, Problem> {
    let mut parser = Parser { rest: begin(template)?, out: "^/".to_owned(), ..Parser::default() };
    while !parser.rest.is_empty() {
        parser.segment()?;
    }
    parser.out.push('$');
    Ok(parser.out)
}

/// What follows the slash that a template begins with.
pub(super) fn begin(template: &str) -> Result<&str, Problem> {
    if template.len() > LONGEST {
        return Err("a template has at most 256 characters");
    }
    template.strip_prefix('/').ok_or("a template begins with a /")
}

/// Text that stands for itself.
pub(super) fn check_text(text: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~%!$&'()+,;:@=*-/".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err("it has characters that no path has");
    }
    Ok(())
}

/// A variable's name.
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.bytes().all(word) {
        return Err("a variable's name is a letter, and letters, digits and _ after it");
    }
    if name.len() > LONGEST_NAME {
        return Err("a variable's name has at most 16 characters");
    }
    Ok(())
}

#[derive(Default)]
struct Parser<'a> {
    rest: &'a str,
    out: String,
    names: Vec<&'a str>,
    /// A `**` was there.
    open: bool,
}

impl<'a> Parser<'a> {
    /// One segment, and the slash behind it.
    fn segment(&mut self) -> Result<(), Problem> {
        let start = self.text_until(['/', '{', '*']);
        if !start.is_empty() {
            self.literal(start)?;
        }
        if self.rest.starts_with('*') {
            if !start.is_empty() {
                return Err("a * must be a whole segment");
            }
            let stars = if self.rest.starts_with("**") { "**" } else { "*" };
            self.rest = &self.rest[stars.len()..];
            self.stars(stars)?;
            let suffix = self.text_until(['/', '{', '*']);
            if !suffix.is_empty() && !self.rest.is_empty() {
                return Err("nothing may follow the text behind a *");
            }
            self.literal(suffix)?;
        } else if let Some(inner) = self.rest.strip_prefix('{') {
            let (variable, rest) = inner.split_once('}').ok_or("a { is not closed")?;
            self.rest = rest;
            self.variable(variable)?;
            let suffix = self.text_until(['/', '{', '*']);
            self.literal(suffix)?;
        } else if start.is_empty() {
            return Err("a segment is empty");
        }
        match self.rest.strip_prefix('/') {
            Some(rest) => {
                self.out.push('/');
                self.rest = rest;
                Ok(())
            }
            None if self.rest.is_empty() => Ok(()),
            None => Err("only text may stand beside a variable or a *"),
        }
    }

    fn variable(&mut self, variable: &'a str) -> Result<(), Problem> {
        let (name, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        check_name(name)?;
        if self.names.contains(&name) {
            return Err("a variable is there twice");
        }
        self.names.push(name);
        if self.names.len() > MOST_VARIABLES {
            return Err("there are more than five variables");
        }
        // Writing to a string does not fail.
        let _ = write!(self.out, "(?P<{name}>");
        for (place, segment) in pattern.split('/').enumerate() {
            if place > 0 {
                self.out.push('/');
            }
            match segment {
                "*" | "**" => self.stars(segment)?,
                "" => return Err("a variable stands for nothing, or has an empty segment"),
                text if text.contains('*') => return Err("a * must be a whole segment"),
                text => self.literal(text)?,
            }
        }
        self.out.push(')');
        Ok(())
    }

    fn stars(&mut self, stars: &str) -> Result<(), Problem> {
        if self.open {
            return Err("neither * nor a variable may follow **");
        }
        self.open = stars == "**";
        let _ = match self.open {
            true => write!(self.out, "[{CLASS}/]*"),
            false => write!(self.out, "[{CLASS}]+"),
        };
        Ok(())
    }

    fn literal(&mut self, text: &str) -> Result<(), Problem> {
        check_text(text)?;
        self.out.push_str(&regex::escape(text));
        Ok(())
    }

    fn text_until(&mut self, ends: [char; 3]) -> &'a str {
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        text
    }
}
