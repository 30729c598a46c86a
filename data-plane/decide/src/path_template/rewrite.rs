//! Paths that are made of what a template's variables stood for.

use super::parse::{begin, check_name, check_text};
use super::{InvalidTemplate, PathTemplate};

/// `/{two}/{one}`: a path with variables of a [`PathTemplate`].
#[derive(Clone, Debug)]
pub struct TemplateRewrite {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    Variable(Box<str>),
}

impl TemplateRewrite {
    /// Reads a path with variables.
    pub fn new(template: &str) -> Result<Self, InvalidTemplate> {
        let parts = parts(template).map_err(|problem| InvalidTemplate::new(template, problem))?;
        Ok(Self { parts: parts.into() })
    }

    /// The variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(name) => Some(&**name),
        })
    }

    /// The new path; `None` if the template does not match this one.
    pub fn apply(&self, template: &PathTemplate, path: &str) -> Option<String> {
        let found = template.pattern.captures(path)?;
        let part = |part: &'_ Part| match part {
            Part::Text(text) => text.clone().into_string(),
            Part::Variable(name) => {
                found.name(name).map_or_else(String::new, |text| text.as_str().to_owned())
            }
        };
        Some(self.parts.iter().map(part).collect())
    }
}

fn parts(template: &str) -> Result<Vec<Part>, &'static str> {
    let mut rest = begin(template).map(|_| template)?;
    if rest.contains("//") {
        return Err("a segment is empty");
    }
    let mut parts = Vec::new();
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a { is not closed")?;
        check_text(text)?;
        check_name(name)?;
        parts.push(Part::Text(text.into()));
        parts.push(Part::Variable(name.into()));
        rest = after;
    }
    check_text(rest)?;
    parts.push(Part::Text(rest.into()));
    Ok(parts)
}
