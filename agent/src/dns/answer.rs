//! Answers from the name table.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::Rng;
use xds_api::istio::nds::NameTable;
use xds_api::istio::nds::name_table::NameInfo;

use super::table::{Found, NameTables, PodDomain};

/// Seconds for which an answer may be kept.
const TTL: u32 = 30;
/// Without EDNS, a datagram holds no more.
const MIN_PAYLOAD: u16 = 512;

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Decision {
    /// Send this.
    Answer(Message),
    /// Ask the pod's own servers.
    Forward,
    /// Not a query: drop it.
    Drop,
}

/// Decides on a query.
pub(super) fn decide(tables: &NameTables, query: &Message, rng: &mut impl Rng) -> Decision {
    if query.message_type() != MessageType::Query {
        return Decision::Drop;
    }
    if query.op_code() != OpCode::Query {
        return Decision::Answer(failure(query, ResponseCode::NotImp));
    }
    let [question] = query.queries() else {
        return Decision::Answer(failure(query, ResponseCode::FormErr));
    };
    let ours = matches!(question.query_type(), RecordType::A | RecordType::AAAA)
        && question.query_class() == DNSClass::IN;
    match ours.then(|| tables.lookup(&question.name().to_ascii())).flatten() {
        Some(found) => Decision::Answer(answer(query, question, &found, rng)),
        None => Decision::Forward,
    }
}

/// The datagram that answers a query without asking anybody, by a small table: for tests and fuzzers.
#[doc(hidden)]
pub fn local_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    let tables = NameTables::new(PodDomain::parse("default.svc.cluster.local", "default"), Vec::new());
    let info = |ips: &[&str]| NameInfo {
        ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
        ..NameInfo::default()
    };
    let many: Vec<String> = (0..200).map(|last| format!("10.0.0.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let names = [("a.test", info(&["10.0.0.1", "2001:db8::1"])), ("*.many.test", info(&many))];
    tables.replace(NameTable {
        table: names.into_iter().map(|(name, info)| (name.to_owned(), info)).collect(),
    });
    match decide(&tables, &query, &mut rand::rng()) {
        Decision::Drop | Decision::Forward => None,
        Decision::Answer(response) => to_datagram(&query, response),
    }
}

/// A known name without an address of the asked family has an empty answer: it exists.
fn answer(query: &Message, question: &Query, found: &Found, rng: &mut impl Rng) -> Message {
    let mut response = response(query);
    response.set_authoritative(true);
    let mut owner = question.name().clone();
    if let Some(target) = found.alias_of.as_deref().and_then(|target| Name::from_ascii(target).ok()) {
        let mut target = target;
        target.set_fqdn(true);
        response.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    let mut records: Vec<RData> =
        found.addresses.iter().filter_map(|ip| rdata(*ip, question.query_type())).collect();
    if records.len() > 1 {
        // Clients mostly take the first.
        let first = rng.random_range(0..records.len());
        records.rotate_left(first);
    }
    for data in records {
        response.add_answer(Record::from_rdata(owner.clone(), TTL, data));
    }
    response
}

fn rdata(ip: IpAddr, wanted: RecordType) -> Option<RData> {
    match (ip, wanted) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    }
}

/// An answer that says why there is none.
pub(super) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut response = response(query);
    response.set_response_code(code);
    response
}

fn response(query: &Message) -> Message {
    let mut response = Message::new();
    response
        .set_id(query.id())
        .set_message_type(MessageType::Response)
        .set_op_code(query.op_code())
        .set_recursion_desired(query.recursion_desired())
        .set_recursion_available(true)
        .add_queries(query.queries().iter().cloned());
    response
}

/// The bytes of an answer, shortened and marked so where a datagram cannot hold it.
pub(super) fn to_datagram(query: &Message, mut response: Message) -> Option<Vec<u8>> {
    let limit = query.extensions().as_ref().map_or(MIN_PAYLOAD, |edns| edns.max_payload().max(MIN_PAYLOAD));
    loop {
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= usize::from(limit) {
            return Some(bytes);
        }
        response.set_truncated(true);
        let mut answers = response.take_answers();
        if answers.is_empty() {
            return None;
        }
        answers.truncate(answers.len() / 2);
        response.add_answers(answers);
    }
}
