//! `header_mutation`

use std::sync::Arc;

use sail_proxy_decide::headers::{Mutation, Mutations};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, headers, matchers};
use crate::pb;
use crate::pb::filters::http::header_mutation::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    convert: read,
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        convert: read_per_route,
    }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let proto::HeaderMutation { mutations, most_specific_header_mutations_wins: _ } = cx.unpack(any)?;
    let mutations = cx.option("mutations", mutations, self::mutations).unwrap_or_default();
    Some(HttpFilterKind::HeaderMutation(Arc::new(mutations)))
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let proto::HeaderMutationPerRoute { mutations } = cx.unpack(any)?;
    let mutations = cx.option("mutations", mutations, self::mutations)?;
    Some(PerFilterConfig::HeaderMutation(Arc::new(mutations)))
}

fn mutations(cx: &mut Cx<'_>, value: proto::Mutations) -> Option<Mutations> {
    let proto::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = value;
    cx.refuse("query_parameter_mutations", &query_parameter_mutations);
    cx.refuse("response_trailers_mutations", &response_trailers_mutations);
    cx.refuse("request_trailers_mutations", &request_trailers_mutations);
    Some(Mutations {
        request: cx.each("request_mutations", request_mutations, mutation).into(),
        response: cx.each("response_mutations", response_mutations, mutation).into(),
    })
}

pub(crate) fn mutation(cx: &mut Cx<'_>, value: pb::mutation_rules::HeaderMutation) -> Option<Mutation> {
    use pb::mutation_rules::header_mutation::Action;
    match value.action {
        Some(Action::Remove(name)) => {
            cx.within("remove", |cx| headers::removed(cx, name)).map(Mutation::Remove)
        }
        Some(Action::Append(value)) => cx.within("append", |cx| headers::add(cx, value)).map(Mutation::Add),
        Some(Action::RemoveOnMatch(value)) => cx
            .required("remove_on_match.key_matcher", value.key_matcher, matchers::string)
            .map(Mutation::RemoveMatching),
        None => {
            cx.error("action", "it must be set");
            None
        }
    }
}
