//! What formats read as, and what they write.

use std::borrow::Cow;

use super::{Attributes, Error, Field, Format, Missing, Operator};

struct Fixed;

impl Attributes for Fixed {
    fn text(&self, operator: &Operator) -> Option<Cow<'_, str>> {
        match operator {
            Operator::Field(Field::ResponseCode) => Some("200".into()),
            Operator::Request(main, other) => {
                Some(format!("{}|{}", main.as_str(), other.as_ref().map_or("", |key| key.as_str())).into())
            }
            Operator::Time(_, format) => Some(format!("{format:?}").into()),
            Operator::Metadata(source, namespace, keys) => {
                Some(format!("{source:?}/{namespace}/{keys:?}").into())
            }
            _ => None,
        }
    }

    fn json(&self, operator: &Operator) -> Option<serde_json::Value> {
        match operator {
            Operator::Field(Field::ResponseCode) => Some(200.into()),
            other => self.text(other).map(|text| text.into_owned().into()),
        }
    }
}

fn write(format: &str) -> String {
    let mut out = String::new();
    Format::parse(format).unwrap().write(&Fixed, Missing::Dash, &mut out);
    out
}

#[test]
fn operators_and_text_mix() {
    assert_eq!(write("[%RESPONSE_CODE%] 100%% %UPSTREAM_HOST%\n"), "[200] 100% -\n");
    assert_eq!(
        write("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        ":method| x-envoy-original-path|:path"
    );
    assert_eq!(write("%REQ(X-REQUEST-ID):4%"), "x-re");
    assert_eq!(write("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%"), r#"Strftime("%Y/%m/%dT%H:%M:%S%z %s")"#);
    assert_eq!(
        write("%DYNAMIC_METADATA(istio.mixer:status:code)%"),
        r#"Dynamic/istio.mixer/["status", "code"]"#
    );
    assert_eq!(write(r#"%UPSTREAM_METADATA(["ns", "a"])%"#), r#"UpstreamHost/ns/["a"]"#);
}

#[test]
fn one_operator_alone_keeps_its_type() {
    let json = |format| Format::parse(format).unwrap().json(&Fixed, Missing::Dash);
    assert_eq!(json("%RESPONSE_CODE%"), serde_json::json!(200));
    assert_eq!(json("x%RESPONSE_CODE%"), serde_json::json!("x200"));
    assert_eq!(json("%UPSTREAM_HOST%"), serde_json::Value::Null);
}

#[test]
fn mistakes_are_named() {
    assert_eq!(Format::parse("a %REQ(X)"), Err(Error::Unterminated(2)));
    assert_eq!(Format::parse("%NOPE%"), Err(Error::Unknown("NOPE".into())));
    assert!(matches!(Format::parse("%REQ()%"), Err(Error::Argument { .. })));
    assert!(matches!(Format::parse("%REQ(a?b?c)%"), Err(Error::Argument { .. })));
    assert!(matches!(Format::parse("%DURATION(x)%"), Err(Error::Argument { .. })));
    assert!(matches!(Format::parse("%FILTER_STATE(a:WAT)%"), Err(Error::Argument { .. })));
}

#[test]
fn coalesce_takes_the_first_that_is_there() {
    let operator = r#"%COALESCE({"operators": ["UPSTREAM_HOST", {"command": "REQ", "param": "a?b", "max_length": 2}]})%"#;
    assert_eq!(write(operator), "a|");
    assert!(Format::parse("%COALESCE({})%").is_err());
    assert_eq!(Format::parse("%SECRET(x)%").unwrap_err().to_string(), "operator SECRET is not supported");
}

#[test]
fn time_points_are_known_by_name() {
    for point in super::TimePoint::ALL {
        assert!(Format::parse(&format!("%COMMON_DURATION({}:DS_TX_END:us)%", point.name())).is_ok());
    }
    assert!(matches!(Format::parse("%COMMON_DURATION(x:DS_TX_END)%"), Err(Error::Argument { .. })));
}

#[test]
fn a_files_content_has_a_path() {
    for good in ["%FILE_CONTENT(/a)%", "%FILE_CONTENT(/a:/b)%"] {
        assert!(Format::parse(good).is_ok(), "{good}");
    }
    for bad in ["%FILE_CONTENT()%", "%FILE_CONTENT(/a:)%", "%FILE_CONTENT(/a:/b:c)%"] {
        assert!(matches!(Format::parse(bad), Err(Error::Argument { .. })), "{bad}");
    }
}
