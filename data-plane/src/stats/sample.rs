//! A statistic as it is read.

use std::fmt;

use super::histogram::Buckets;
use super::schema::Tag;

/// A statistic's name in its parts.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// `cluster`, `listener`, `http`; may be empty.
    pub root: &'a str,
    /// The object's own name; may be empty.
    pub object: &'a str,
    /// What is counted; may be empty where the object's name is all.
    pub stat: &'a str,
    /// What the object's name becomes in Prometheus' form.
    pub tag: Tag,
    /// Labels whose values do not stand in the name as they are.
    pub labels: &'a [(&'static str, &'a str)],
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tag == Tag::Rendered {
            // Istio's spelling of a metric with labels.
            return write!(f, "istiocustom.{}.{}", self.stat, self.object);
        }
        let mut parts = [self.root, self.object, self.stat].into_iter().filter(|part| !part.is_empty());
        f.write_str(parts.next().unwrap_or_default())?;
        for part in parts {
            f.write_str(".")?;
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// A statistic's value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A counter.
    Counter(u64),
    /// A gauge.
    Gauge(i64),
    /// A gauge that is a hash.
    Hash(u64),
    /// A histogram.
    Histogram(&'a Buckets),
    /// A gauge that is text.
    Text(&'a str),
}

/// One statistic.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Its name.
    pub name: Name<'a>,
    /// Its value.
    pub value: Value<'a>,
    /// Whether it was ever written.
    pub used: bool,
}
