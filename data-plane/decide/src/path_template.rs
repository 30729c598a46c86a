//! URI templates: `/api/{version}/*/items/{rest=**}`. `*` stands for one segment, `**` for any number of them; what a
//! variable stood for may be put into another path.

mod parse;
mod rewrite;

pub use rewrite::TemplateRewrite;

use regex::Regex;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    pattern: Regex,
    source: Box<str>,
}

/// Why a template is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template:?}: {problem}")]
pub struct InvalidTemplate {
    template: String,
    problem: &'static str,
}

impl InvalidTemplate {
    fn new(template: &str, problem: &'static str) -> Self {
        Self { template: template.into(), problem }
    }
}

impl PartialEq for PathTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for PathTemplate {}

impl PathTemplate {
    /// Compiles a template.
    pub fn new(template: &str) -> Result<Self, InvalidTemplate> {
        let fail = |problem| InvalidTemplate::new(template, problem);
        let pattern = parse::to_regex(template).map_err(fail)?;
        let pattern = Regex::new(&pattern).map_err(|_| fail("it is too large"))?;
        Ok(Self { pattern, source: template.into() })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the path (without its query) matches.
    pub fn is_match(&self, path: &str) -> bool {
        self.pattern.is_match(path)
    }

    /// Whether it has a variable of this name.
    pub fn has_variable(&self, name: &str) -> bool {
        self.pattern.capture_names().flatten().any(|known| known == name)
    }
}

#[cfg(test)]
mod tests;
