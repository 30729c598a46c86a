//! URI templates: `/api/{version}/*/items/{rest=**}`. `*` stands for one segment, `**` for the rest of the path.

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Box<[Segment]>,
    source: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `text`, `prefix*` or the like: at most one `*` in it.
    Text(Box<str>),
    /// One segment: `*` or `{name}`.
    One,
    /// Any number of segments, none included: `**` or `{name=**}`; what follows is text.
    Rest(Box<str>),
}

/// Why a template is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template:?}: {problem}")]
pub struct InvalidTemplate {
    template: String,
    problem: &'static str,
}

impl PathTemplate {
    /// Compiles a template.
    pub fn new(template: &str) -> Result<Self, InvalidTemplate> {
        let fail = |problem| InvalidTemplate { template: template.into(), problem };
        let path = template.strip_prefix('/').ok_or_else(|| fail("a template begins with a /"))?;
        let mut segments = Vec::new();
        for text in expand(path).map_err(fail)? {
            if segments.iter().any(|segment| matches!(segment, Segment::Rest(_))) {
                return Err(fail("nothing but text may follow **"));
            }
            segments.push(match text.as_str() {
                "*" => Segment::One,
                text if text.starts_with("**") => {
                    let tail = &text[2..];
                    if tail.contains('*') {
                        return Err(fail("nothing but text may follow **"));
                    }
                    Segment::Rest(tail.into())
                }
                text if text.contains('*') => return Err(fail("a * must be a whole segment")),
                text => Segment::Text(text.into()),
            });
        }
        Ok(Self { segments: segments.into(), source: template.into() })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the path (without its query) matches.
    pub fn is_match(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut rest = Some(path);
        for segment in &self.segments {
            if let Segment::Rest(tail) = segment {
                return rest.unwrap_or_default().ends_with(&**tail);
            }
            let Some(current) = rest else { return false };
            let (head, tail) = match current.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (current, None),
            };
            let matched = match segment {
                Segment::Text(text) => head == &**text,
                Segment::One => !head.is_empty(),
                Segment::Rest(_) => true,
            };
            if !matched {
                return false;
            }
            rest = tail;
        }
        rest.is_none()
    }
}

/// The segments with variables replaced by what they stand for.
fn expand(path: &str) -> Result<Vec<String>, &'static str> {
    let mut plain = String::new();
    let mut rest = path;
    while let Some(open) = rest.find('{') {
        plain.push_str(&rest[..open]);
        let close = rest[open..].find('}').ok_or("a { is not closed")?;
        let variable = &rest[open + 1..open + close];
        let (name, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        if name.is_empty() || pattern.is_empty() || pattern.contains('{') || name == "**" || name == "*" {
            return Err("a variable is written {name} or {name=pattern}");
        }
        plain.push_str(pattern);
        rest = &rest[open + close + 1..];
    }
    plain.push_str(rest);
    if plain.contains('}') {
        return Err("a } is not opened");
    }
    Ok(plain.split('/').map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let check = |template: &str, yes: &[&str], no: &[&str]| {
            let compiled = PathTemplate::new(template).unwrap();
            yes.iter().for_each(|path| assert!(compiled.is_match(path), "{template} {path}"));
            no.iter().for_each(|path| assert!(!compiled.is_match(path), "{template} {path}"));
        };
        check("/foo/bar", &["/foo/bar"], &["/foo", "/foo/bar/", "/foo/barx"]);
        check("/foo/*", &["/foo/a"], &["/foo/", "/foo", "/foo/a/b"]);
        check("/foo/**", &["/foo/", "/foo/a/b"], &["/fo/a"]);
        check("/foo/{a}/x/{b=**}", &["/foo/1/x/", "/foo/1/x/2/3"], &["/foo/1/y/2"]);
        check("/**.html", &["/a/b.html", "/x.html"], &["/a.htm"]);
        assert!(PathTemplate::new("foo").is_err());
        assert!(PathTemplate::new("/**/foo").is_err());
        assert!(PathTemplate::new("/{a").is_err());
        assert!(PathTemplate::new("/a*b").is_err());
    }
}
