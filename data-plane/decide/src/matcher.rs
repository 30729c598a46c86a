//! Matchers that many decisions share: strings, headers, query parameters, metadata values.

mod header;
mod re2;
mod regex;
mod string;
pub mod tree;
mod value;

pub use header::{HeaderMatch, HeaderMatcher, QueryMatcher, query_value};
pub use regex::{FullRegex, InvalidRegex, RegexRewrite};
pub use string::{StringMatch, StringMatcher};
pub use value::{MetadataMatcher, ValueMatcher, lookup};
