//! `header_mutation`

use std::sync::Arc;

use sail_proxy_decide::format::Format;
use sail_proxy_decide::headers::{AppendAction, Mutation, Mutations, QueryMutation};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, headers, matchers, values};
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
    let proto::HeaderMutation { mutations, most_specific_header_mutations_wins } = cx.unpack(any)?;
    let mutations = cx.option("mutations", mutations, self::mutations).unwrap_or_default();
    let mutations = Mutations { most_specific_wins: most_specific_header_mutations_wins, ..mutations };
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
    Some(Mutations {
        request: cx.each("request_mutations", request_mutations, mutation).into(),
        response: cx.each("response_mutations", response_mutations, mutation).into(),
        request_trailers: cx.each("request_trailers_mutations", request_trailers_mutations, mutation).into(),
        response_trailers: cx
            .each("response_trailers_mutations", response_trailers_mutations, mutation)
            .into(),
        query: cx.each("query_parameter_mutations", query_parameter_mutations, query).into(),
        most_specific_wins: false,
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

fn query(cx: &mut Cx<'_>, value: pb::core::KeyValueMutation) -> Option<QueryMutation> {
    use pb::core::key_value_append::KeyValueAppendAction as Action;
    let pb::core::KeyValueMutation { append, remove } = value;
    let Some(append) = append else {
        if remove.is_empty() {
            cx.error("", "append or remove must be set");
            return None;
        }
        return Some(QueryMutation::Remove(remove.into()));
    };
    if !remove.is_empty() {
        cx.error("", "append and remove cannot be set together");
    }
    let pb::core::KeyValueAppend { record, entry, action } = append;
    cx.refuse("append.entry", &entry);
    let record = cx.required("append.record", record, |_, record| Some(record))?;
    let value = cx.required("append.record.value", record.value, |_, value| Some(values::json(value)))?;
    let Some(text) = value.as_str() else {
        cx.error("append.record.value", "it must be a string");
        return None;
    };
    let format = cx.ok("append.record.value", Format::parse(text))?;
    let action = match Action::try_from(action) {
        Ok(Action::AppendIfExistsOrAdd) => AppendAction::AppendIfExistsOrAdd,
        Ok(Action::AddIfAbsent) => AppendAction::AddIfAbsent,
        Ok(Action::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        Ok(Action::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        Err(_) => {
            cx.error("append.action", "it is not known");
            return None;
        }
    };
    Some(QueryMutation::Add(record.key.into(), format, action))
}
