//! What all conversions share: the path to the field at hand, findings, and readers of common messages.

pub(crate) mod address;
pub(crate) mod headers;
pub(crate) mod matchers;
pub(crate) mod tree;
pub(crate) mod values;

use std::fmt;
use std::sync::Arc;

use prost::{Message, Name};

use crate::diagnostics::{Diagnostic, Severity};
use crate::http_filter::lua::Script;
use crate::pb;

/// What conversions read besides messages. The I/O side gives it; tests give maps.
pub trait Sources {
    /// A file's content.
    fn file(&self, path: &str) -> Result<Vec<u8>, String>;
    /// An environment variable.
    fn environment(&self, name: &str) -> Option<String>;
    /// The bootstrap's tracer, which connection managers that trace and name none have.
    fn tracer(&self) -> Option<pb::trace::tracing::Http> {
        None
    }

    /// Looks at a wasm plugin's module, which may not be there yet, and gives it a form of its own; by default nobody
    /// does.
    fn wasm(&self, plugin: &crate::wasm::Plugin, code: Option<&[u8]>) -> Result<crate::wasm::Loaded, String> {
        let _ = (plugin, code);
        Ok(crate::wasm::Loaded(Arc::new(())))
    }

    /// Loads a script once, to see that it can be; who has no Lua at hand takes every script.
    fn lua(&self, script: &Script) -> Result<(), String> {
        let _ = script;
        Ok(())
    }
}

/// Neither files nor variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        Err(format!("{path} cannot be read: files are not at hand here"))
    }

    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

/// A conversion under way.
pub(crate) struct Cx<'a> {
    pub(crate) sources: &'a dyn Sources,
    /// What was read from files, to be read again when they change.
    pub(crate) rereads: Vec<crate::secret::Source>,
    path: String,
    findings: Vec<Diagnostic>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(sources: &'a dyn Sources) -> Self {
        Self { sources, rereads: Vec::new(), path: String::new(), findings: Vec::new() }
    }

    pub(crate) fn into_findings(self) -> Vec<Diagnostic> {
        self.findings
    }

    /// Does something inside a field.
    pub(crate) fn within<T>(&mut self, field: impl fmt::Display, inside: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.push(field);
        let result = inside(self);
        self.path.truncate(length);
        result
    }

    /// Converts every item of a list; items that are refused are left out.
    pub(crate) fn each<I, T>(
        &mut self,
        field: &str,
        items: impl IntoIterator<Item = I>,
        mut convert: impl FnMut(&mut Self, I) -> Option<T>,
    ) -> Vec<T> {
        let items = items.into_iter().enumerate();
        items
            .filter_map(|(index, item)| self.within(format_args!("{field}[{index}]"), |cx| convert(cx, item)))
            .collect()
    }

    /// Converts a message that is there.
    pub(crate) fn option<I, T>(
        &mut self,
        field: &str,
        item: Option<I>,
        convert: impl FnOnce(&mut Self, I) -> Option<T>,
    ) -> Option<T> {
        item.and_then(|item| self.within(field, |cx| convert(cx, item)))
    }

    /// Converts a message that must be there.
    pub(crate) fn required<I, T>(
        &mut self,
        field: &str,
        item: Option<I>,
        convert: impl FnOnce(&mut Self, I) -> Option<T>,
    ) -> Option<T> {
        match item {
            Some(item) => self.within(field, |cx| convert(cx, item)),
            None => {
                self.error(field, "it must be set");
                None
            }
        }
    }

    /// Refuses the resource because of a field.
    pub(crate) fn error(&mut self, field: &str, message: impl fmt::Display) {
        self.find(Severity::Error, field, message);
    }

    /// Tells of a field that does nothing.
    pub(crate) fn warn(&mut self, field: &str, message: impl fmt::Display) {
        self.find(Severity::Warning, field, message);
    }

    /// Refuses the resource if the field is set.
    pub(crate) fn refuse<T: Default + PartialEq>(&mut self, field: &str, value: &T) {
        if *value != T::default() {
            self.error(field, "it is not supported");
        }
    }

    /// Refuses the resource if the field asks for what the workers do not carry out yet.
    pub(crate) fn unserved<T: Default + PartialEq>(&mut self, field: &str, value: &T) {
        if *value != T::default() {
            self.error(field, "it is understood but not carried out yet");
        }
    }

    /// Tells, if the field is set, that it does nothing here.
    pub(crate) fn ignore<T: Default + PartialEq>(&mut self, field: &str, value: &T, why: &str) {
        if *value != T::default() {
            self.warn(field, why);
        }
    }

    /// The value of a result; its error refuses the resource.
    pub(crate) fn ok<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.error(field, error)).ok()
    }

    /// The message in an `Any`.
    pub(crate) fn unpack<M: Message + Name + Default>(&mut self, any: &pb::Any) -> Option<M> {
        self.ok("", xds_api::any::unpack(any))
    }

    fn find(&mut self, severity: Severity, field: &str, message: impl fmt::Display) {
        let length = self.path.len();
        if !field.is_empty() {
            self.push(field);
        }
        let field = self.path.clone();
        self.path.truncate(length);
        self.findings.push(Diagnostic { severity, field, message: message.to_string() });
    }

    fn push(&mut self, field: impl fmt::Display) {
        use fmt::Write as _;
        if !self.path.is_empty() {
            self.path.push('.');
        }
        // Writing to a `String` does not fail.
        let _ = write!(self.path, "{field}");
    }
}

/// The message's name in an `Any`'s type URL.
pub(crate) fn type_name(any: &pb::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

pub(crate) fn arc(text: String) -> Arc<str> {
    // The default is one for all.
    if text.is_empty() { Arc::default() } else { Arc::from(text) }
}

/// The version of a resource: a hash of its bytes that is the same in every process of this build.
pub fn hash(bytes: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    // `new` has fixed keys, unlike `RandomState`.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
