//! Where in a manifest something is, and what was found there.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object works, but the user should know.
    Warning,
    /// The object cannot be used.
    Error,
}

/// Something to say about one field of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// The path from the object's root: `spec.http[0].route[1].weight`.
    pub field: String,
    /// What is wrong, in words for the author of the manifest.
    pub message: String,
    /// Whether the object can still be used.
    pub severity: Severity,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// One step of a path.
#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

/// The cursor that decoding and validation share: it knows the path it stands at and collects findings.
#[derive(Debug, Default)]
pub struct Cx {
    path: Vec<Step>,
    findings: Vec<Finding>,
}

impl Cx {
    /// A cursor at the object's root.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything found so far, in the order of discovery.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Whether an error was found.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }

    /// Runs `f` one field deeper.
    pub fn field<R>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        self.step(Step::Field(name.to_owned()), f)
    }

    /// Runs `f` at an element of a list.
    pub fn index<R>(&mut self, index: usize, f: impl FnOnce(&mut Self) -> R) -> R {
        self.step(Step::Index(index), f)
    }

    /// Runs `f` at an entry of a map.
    pub fn key<R>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        self.step(Step::Key(key.to_owned()), f)
    }

    /// Runs `f` at each element of the list field `name`.
    pub fn each<T>(&mut self, name: &str, items: &[T], mut f: impl FnMut(&mut Self, &T)) {
        if items.is_empty() {
            return;
        }
        self.field(name, |cx| {
            for (i, item) in items.iter().enumerate() {
                cx.index(i, |cx| f(cx, item));
            }
        });
    }

    /// Runs `f` at the field `name` when it is set.
    pub fn some<T>(&mut self, name: &str, value: Option<&T>, f: impl FnOnce(&mut Self, &T)) {
        if let Some(value) = value {
            self.field(name, |cx| f(cx, value));
        }
    }

    /// Records an error here.
    pub fn error(&mut self, message: impl Into<String>) {
        self.push(Severity::Error, message.into());
    }

    /// Records a warning here.
    pub fn warn(&mut self, message: impl Into<String>) {
        self.push(Severity::Warning, message.into());
    }

    /// Records an error at the field `name`.
    pub fn error_at(&mut self, name: &str, message: impl Into<String>) {
        self.field(name, |cx| cx.error(message));
    }

    /// Records a warning at the field `name`.
    pub fn warn_at(&mut self, name: &str, message: impl Into<String>) {
        self.field(name, |cx| cx.warn(message));
    }

    /// The path as text.
    pub fn path(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Step::Index(i) => out.push_str(&format!("[{i}]")),
                Step::Key(key) => out.push_str(&format!("[{key}]")),
            }
        }
        out
    }

    fn step<R>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    fn push(&mut self, severity: Severity, message: String) {
        let field = self.path();
        self.findings.push(Finding { field, message, severity });
    }
}
