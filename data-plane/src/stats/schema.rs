//! What statistics a kind of object has: names, kinds and places, known when the proxy is compiled.

use std::marker::PhantomData;

/// A set of statistics that one kind of object has.
pub trait StatSet: 'static {
    /// Its names.
    const SCHEMA: &'static Schema;
}

/// Names of a set's statistics, in the order of their places.
#[derive(Debug)]
pub struct Schema {
    /// Distinguishes sets, also those with the same root.
    pub id: &'static str,
    /// What stands before the object's name: `cluster`, `listener`, `http`; empty where the name is all.
    pub root: &'static str,
    /// What the object's name becomes in Prometheus' form.
    pub tag: Tag,
    /// Counters and gauges.
    pub scalars: &'static [Def],
    /// Histograms.
    pub histograms: &'static [Def],
    /// Whether responses are counted by status: `upstream_rq_200`.
    pub codes: Option<&'static str>,
    /// Statistics whose names begin so are there once they were written.
    pub lazy: &'static [&'static str],
    /// Statistics that are told of each worker by itself, too.
    pub per_worker: &'static [&'static str],
    /// Its one statistic that is text, if it has any.
    pub text: Option<Text>,
    /// What Envoy has and cannot happen here: told as 0, and kept nowhere.
    pub zeros: &'static [Def],
}

/// What an object's name becomes in Prometheus' form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A part of the metric's name.
    None,
    /// A label of this name, in Envoy's spelling: `envoy.cluster_name`.
    Label(&'static str),
    /// Two names with a word between them, and what each becomes: `HOST.vcluster.NAME`.
    VirtualHost,
    /// A connection manager's prefix and the route table that it asks for, each a label: `PREFIX.rds.NAME`.
    RouteTable,
    /// The same for its scopes of routes: `PREFIX.scoped_rds.NAME`.
    Scopes,
    /// The first of the name's parts is a label of this name; the others are parts of the metric's.
    First(&'static str),
    /// A cluster and one of its hosts, each a label; the host's has its colon: `CLUSTER.endpoint.HOST`.
    Endpoint,
    /// It is a set of labels already, as Prometheus writes them.
    Rendered,
}

/// A statistic that is text.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Its name after the object's.
    pub name: &'static str,
    /// The gauge that is its hash, Envoy's.
    pub hash: Option<&'static str>,
}

impl Text {
    /// The version that was taken last.
    pub(in crate::stats) const VERSION: Option<Self> =
        Some(Self { name: "version_text", hash: Some("version") });
    /// Who a management server says that it is.
    pub(in crate::stats) const IDENTIFIER: Option<Self> = Some(Self { name: "identifier", hash: None });
}

/// One statistic.
#[derive(Debug)]
pub struct Def {
    /// Its name after the object's.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What a statistic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
    /// Text.
    Text,
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<S> {
            pub(super) place: u16,
            set: PhantomData<fn() -> S>,
        }

        impl<S> $name<S> {
            /// Sets name their statistics with this; nothing else does.
            pub(in crate::stats) const fn at(place: u16) -> Self {
                Self { place, set: PhantomData }
            }
        }

        impl<S> Clone for $name<S> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<S> Copy for $name<S> {}

        impl<S> std::fmt::Debug for $name<S> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.place)
            }
        }
    };
}

handle!(
    /// A counter of the set `S`.
    Counter
);
handle!(
    /// A gauge of the set `S`.
    Gauge
);
handle!(
    /// A histogram of the set `S`.
    Histogram
);

/// Declares a set: a module with a marker type `Set` and a constant per statistic.
macro_rules! stat_set {
    (
        $(#[$doc:meta])*
        $module:ident {
            root: $root:literal, tag: $tag:expr $(, codes: $codes:literal)? $(, lazy: [$($lazy:literal),*])?
            $(, per_worker: [$($worker:literal),*])? $(, text: $text:expr)?
        }
        counters { $($c:ident = $cn:literal),* $(,)? }
        gauges { $($g:ident = $gn:literal),* $(,)? }
        histograms { $($h:ident = $hn:literal),* $(,)? }
        $(zeros { $($zk:ident $zn:literal),* $(,)? })?
    ) => {
        $(#[$doc])*
        #[allow(non_upper_case_globals, reason = "the constants bear the statistics' own names")]
        pub mod $module {
            #[allow(unused_imports, reason = "a set may lack a kind")]
            use $crate::stats::schema::{
                Counter, Def, Gauge, Histogram, Kind, Schema, StatSet, Tag, Text,
            };

            /// The set, as a type.
            #[derive(Debug)]
            pub enum Set {}

            /// One object's statistics of this set.
            pub type Scope = $crate::stats::Scope<Set>;

            #[allow(non_camel_case_types, clippy::enum_variant_names, reason = "numbers the places")]
            #[repr(u16)]
            #[allow(dead_code)]
            enum Scalar { $($c,)* $($g,)* #[allow(dead_code)] End }

            #[allow(non_camel_case_types, clippy::enum_variant_names, reason = "numbers the places")]
            #[repr(u16)]
            #[allow(dead_code)]
            enum Distribution { $($h,)* #[allow(dead_code)] End }

            $(#[doc = concat!("`", $cn, "`")] pub const $c: Counter<Set> = Counter::at(Scalar::$c as u16);)*
            $(#[doc = concat!("`", $gn, "`")] pub const $g: Gauge<Set> = Gauge::at(Scalar::$g as u16);)*
            $(#[doc = concat!("`", $hn, "`")] pub const $h: Histogram<Set> = Histogram::at(Distribution::$h as u16);)*

            impl StatSet for Set {
                const SCHEMA: &'static Schema = &Schema {
                    id: stringify!($module),
                    root: $root,
                    tag: $tag,
                    scalars: &[
                        $(Def { name: $cn, kind: Kind::Counter },)*
                        $(Def { name: $gn, kind: Kind::Gauge },)*
                    ],
                    histograms: &[$(Def { name: $hn, kind: Kind::Histogram },)*],
                    lazy: &[$($($lazy),*)?],
                    per_worker: &[$($($worker),*)?],
                    text: { #[allow(unused_mut, unused_assignments)] let mut text = None; $(text = $text;)? text },
                    zeros: &[$($(Def { name: $zn, kind: Kind::$zk },)*)?],
                    codes: { #[allow(unused_mut, unused_assignments)] let mut codes = None; $(codes = Some($codes);)? codes },
                };
            }
        }
    };
}
pub(in crate::stats) use stat_set;
