//! `filter_disabled`: for which connections a listener filter does not run.

use std::ops::Range;

use crate::convert::Cx;
use crate::pb;

/// Predicates within predicates; configuration that goes deeper is an attack on the stack.
const MAX_DEPTH: usize = 32;

/// `ListenerFilterChainMatchPredicate`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerPredicate {
    /// One of these.
    Or(Box<[ListenerPredicate]>),
    /// All of these.
    And(Box<[ListenerPredicate]>),
    /// Not this.
    Not(Box<ListenerPredicate>),
    /// Always, or never.
    Any(bool),
    /// The destination port, in a half-open range.
    DestinationPort(Range<u32>),
}

impl ListenerPredicate {
    /// Whether it holds for a connection to this port.
    pub fn is_match(&self, destination_port: Option<u16>) -> bool {
        match self {
            Self::Or(any) => any.iter().any(|predicate| predicate.is_match(destination_port)),
            Self::And(all) => all.iter().all(|predicate| predicate.is_match(destination_port)),
            Self::Not(predicate) => !predicate.is_match(destination_port),
            Self::Any(value) => *value,
            Self::DestinationPort(range) => {
                destination_port.is_some_and(|port| range.contains(&u32::from(port)))
            }
        }
    }
}

/// `ListenerFilterChainMatchPredicate`
pub(super) fn predicate(
    cx: &mut Cx<'_>,
    value: pb::listener::ListenerFilterChainMatchPredicate,
) -> Option<ListenerPredicate> {
    nested(cx, value, MAX_DEPTH)
}

fn nested(
    cx: &mut Cx<'_>,
    value: pb::listener::ListenerFilterChainMatchPredicate,
    depth: usize,
) -> Option<ListenerPredicate> {
    use pb::listener::listener_filter_chain_match_predicate::Rule;
    let Some(depth) = depth.checked_sub(1) else {
        cx.error("", format_args!("predicates are nested more than {MAX_DEPTH} deep"));
        return None;
    };
    match value.rule {
        Some(Rule::OrMatch(set)) => Some(ListenerPredicate::Or(
            cx.each("or_match.rules", set.rules, |cx, rule| nested(cx, rule, depth)).into(),
        )),
        Some(Rule::AndMatch(set)) => Some(ListenerPredicate::And(
            cx.each("and_match.rules", set.rules, |cx, rule| nested(cx, rule, depth)).into(),
        )),
        Some(Rule::NotMatch(rule)) => cx
            .within("not_match", |cx| nested(cx, *rule, depth))
            .map(|rule| ListenerPredicate::Not(Box::new(rule))),
        Some(Rule::AnyMatch(value)) => Some(ListenerPredicate::Any(value)),
        Some(Rule::DestinationPortRange(range)) => {
            let bound = |cx: &mut Cx<'_>, field, value: i32| {
                cx.ok(field, u32::try_from(value).map_err(|_| "it is below 0"))
            };
            cx.within("destination_port_range", |cx| {
                Some(ListenerPredicate::DestinationPort(
                    bound(cx, "start", range.start)?..bound(cx, "end", range.end)?,
                ))
            })
        }
        None => {
            cx.error("rule", "it must be set");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ListenerPredicate::{And, Any, DestinationPort, Not, Or};

    #[test]
    fn ports_are_matched_in_half_open_ranges() {
        let sql = Or([DestinationPort(3306..3307), DestinationPort(5432..5433)].into());
        assert!(sql.is_match(Some(3306)) && sql.is_match(Some(5432)));
        assert!(!sql.is_match(Some(3307)) && !sql.is_match(None));
        assert!(Not(Box::new(sql.clone())).is_match(Some(80)));
        assert!(And([Any(true), sql].into()).is_match(Some(3306)));
    }
}
