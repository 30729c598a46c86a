//! Expressions and their values.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

struct Stream {
    metadata: Json,
}

impl Attributes for Stream {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        Some(match attribute {
            Attribute::RequestPath => Value::text("/info?x=1"),
            Attribute::RequestMethod => Value::text("GET"),
            Attribute::SourcePort => Value::Int(4711),
            Attribute::ConnectionMtls => Value::Bool(true),
            Attribute::RequestTime => Value::Timestamp(1_709_210_096_500_000_000),
            _ => return None,
        })
    }

    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>> {
        match (table, key) {
            (Table::RequestHeaders, "x-a") => Some(Value::text("alpha")),
            (Table::FilterMetadata, key) => {
                self.metadata.get(key).map(|value| Value::from_json(Cow::Borrowed(value)))
            }
            _ => None,
        }
    }
}

fn stream() -> Stream {
    Stream { metadata: json!({"ns": {"list": ["a", "b"], "n": 3, "deep": {"x": true}}}) }
}

fn result(text: &str) -> Result<Json, String> {
    let program = Program::compile(text).map_err(|error| error.to_string())?;
    let stream = stream();
    program.eval(&stream).map(Value::into_json).map_err(|error| error.to_string())
}

#[track_caller]
fn check(text: &str, expected: Json) {
    assert_eq!(result(text), Ok(expected), "{text}");
}

#[test]
fn operators() {
    check("1 + 2 * 3 - -4", json!(11));
    check("7 / 2 == 3 && 7 % 2 == 1", json!(true));
    check("1u + 2u == 3u", json!(true));
    check("1.5 * 2.0", json!(3.0));
    check("1 == 1.0 && 2u > 1 && -1 < 1u", json!(true));
    check("'a' + \"b\" == 'ab'", json!(true));
    check("[1] + [2, 3]", json!([1, 2, 3]));
    check("!(1 > 2) ? 'y' : 'n'", json!("y"));
    check("2 in [1, 2] && !('x' in {'y': 1})", json!(true));
    check("{'a': [10, 20]}.a[1]", json!(20));
    check("0x1F == 31 && 1e3 == 1000.0", json!(true));
    check("b'abc' == bytes('abc') && r'\\d' == '\\\\d' && '\\u00e9' == 'é'", json!(true));
    check("(1 / 0 == 1) || true ? 1 : 2", json!(1));
}

#[test]
fn attributes_are_found() {
    check("request.path.startsWith('/info') && request.method == 'GET'", json!(true));
    check("request.headers['x-a'] == 'alpha' && !('x-b' in request.headers)", json!(true));
    check("has(request.headers.missing) || has(request.host)", json!(false));
    check("has(request.path)", json!(true));
    check("source.port > 1024 && connection.mtls", json!(true));
    check("metadata.filter_metadata['ns'].n + 1.0", json!(4.0));
    check("metadata.filter_metadata.ns.list.exists(x, x == 'b')", json!(true));
    check("metadata['filter_metadata']['ns']['deep']['x']", json!(true));
    assert_eq!(result("request.host"), Err("there is no request.host".to_owned()));
    assert_eq!(result("request.foo"), Err("there is no attribute request.foo".to_owned()));
    assert_eq!(result("foo.bar"), Err("\"foo\" is not known".to_owned()));
    assert_eq!(result("foo(1)"), Err("there is no function \"foo\" of 1 arguments".to_owned()));
}

#[test]
fn failures_give_way_to_what_decides() {
    check("request.host == 'x' || request.method == 'GET'", json!(true));
    check("request.method == 'GET' || request.host == 'x'", json!(true));
    check("request.host == 'x' && request.method == 'POST'", json!(false));
    assert!(result("request.host == 'x' && request.method == 'GET'").is_err());
    let program = Program::compile("request.host == 'x'").unwrap();
    assert!(!program.holds(&stream()));
}

#[test]
fn macros() {
    check("[1, 2, 3].all(x, x > 0)", json!(true));
    check("[1, 2, 3].exists_one(x, x > 2)", json!(true));
    check("[1, 2, 3].filter(x, x > 1).map(x, x * 2)", json!([4, 6]));
    check("[1, 2, 3].map(x, x > 1, x + 1)", json!([3, 4]));
    check("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", json!(true));
    check("[[1], [2]].exists(x, x.exists(y, y == 2))", json!(true));
}

#[test]
fn functions() {
    check("size('äö') + size([1]) + size({'a': 1})", json!(4));
    check("'abc'.contains('b') && 'abc'.endsWith('c') && 'abc'.matches('^a.c$')", json!(true));
    check("matches('xaby', 'a.')", json!(true));
    check("'Ab'.lowerAscii() + 'b'.upperAscii()", json!("abB"));
    check("'a,b'.split(',').join('-').replace('-', '+')", json!("a+b"));
    check("int('7') + int(2.9) + int(1u)", json!(10));
    check("string(1) + string(true) + string(1.5)", json!("1true1.5"));
    check("type(1) == int && type('a') != int && type(type(1)) == type(int)", json!(true));
    check("duration('1h30m').getMinutes() == 90 && duration('1.5s') > duration('1s')", json!(true));
    check("request.time.getFullYear() == 2024 && request.time.getMonth() == 1", json!(true));
    check("request.time.getDate() == 29 && request.time.getDayOfWeek() == 4", json!(true));
    check("string(timestamp('2024-02-29T12:34:56.5Z'))", json!("2024-02-29T12:34:56.5Z"));
    check("request.time == timestamp('2024-02-29T13:34:56.5+01:00')", json!(true));
    check(
        "timestamp('2024-03-01T00:00:00Z') - duration('1s') < timestamp('2024-03-01T00:00:00Z')",
        json!(true),
    );
}

#[test]
fn bounds_hold() {
    let list = format!("[{}]", vec!["1"; 400].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a == b || b == c)))");
    assert_eq!(result(&nested), Err("it exceeds its bounds".to_owned()));
    assert!(result(&"(".repeat(100)).is_err());
    assert!(result(&"!".repeat(1000)).is_err());
    assert!(result(&vec!["1"; 1000].join("+")).is_err());
    assert!(result("9223372036854775807 + 1").is_err());
    assert!(result("1 / 0").is_err());
    assert!(result("'a'.matches('(')").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_panics(text in "\\PC{0,40}") {
        let _ = result(&text);
    }

    #[test]
    fn expressions_do_not_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "1", "2u", "1.5", "'a'", "b'x'", "true", "null", "(", ")", "[", "]", "{", "}", ":", "?", ",", ".",
                "+", "-", "*", "/", "%", "==", "<", "in", "&&", "||", "!", "request", "path", "headers", "size",
                "has", "map", "exists", "all", "x", "matches", "duration", "timestamp", "string", "int",
                "metadata", "filter_metadata", "getHours", "-9223372036854775808", "'1h'",
            ]),
            0..24,
        )
    ) {
        let _ = result(&words.join(" "));
    }
}
