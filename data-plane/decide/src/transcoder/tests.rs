//! Requests, messages and responses of a service with every kind of binding.

use super::*;

fn descriptors() -> Vec<u8> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/transcoder");
    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    // Options that are extensions are lost in other forms.
    compiler.encode_file_descriptor_set()
}

fn shop(input: Input, print: Print) -> Arc<Transcoder> {
    Arc::new(Transcoder::new(&descriptors(), &["shop.Shop".to_owned()], true, print, input).unwrap())
}

/// The call's path, and its message as JSON.
fn request(shop: &Arc<Transcoder>, method: &str, path: &str, body: &str) -> Result<(String, String), String> {
    let method = http::Method::from_bytes(method.as_bytes()).unwrap();
    let call = shop.find(&method, path).map_err(|no| format!("{no:?}"))?;
    let bytes = call.request(body.as_bytes(), "text/x", true).map_err(|unfit| unfit.to_string())?;
    let message = DynamicMessage::decode(call.method().input(), &*bytes).unwrap();
    Ok((call.path(), message::write(&message, &Print::default(), "").unwrap()))
}

#[test]
fn requests_mean_methods() {
    let shop = shop(Input::default(), Print::default());
    let check = |method, path, body, expected: (&str, &str)| {
        let found = request(&shop, method, path, body).unwrap();
        assert_eq!((&*found.0, &*found.1), expected, "{method} {path}");
    };
    check(
        "GET",
        "/v1/items/7?tags=a&tags=b&inIt.name=x&sold=true",
        "",
        ("/shop.Shop/Get", r#"{"id":"7","tags":["a","b"],"inIt":{"name":"x"},"sold":true}"#),
    );
    check("GET", "/v1/shelves/3/items/7", "", ("/shop.Shop/Get", r#"{"id":"7","name":"shelves/3"}"#));
    check("FIND", "/v1/items?colour=DARK_RED", "", ("/shop.Shop/Get", r#"{"colour":"DARK_RED"}"#));
    check("PUT", "/v1/items/7", r#"{"name": "n"}"#, ("/shop.Shop/Put", r#"{"id":"7","name":"n"}"#));
    check("PUT", "/v1/items/7", r#"{"id": 8}"#, ("/shop.Shop/Put", r#"{"id":"8"}"#));
    check(
        "PATCH",
        "/v1/items/7:change?why=so",
        r#"{"name": "n"}"#,
        ("/shop.Shop/Patch", r#"{"item":{"id":"7","name":"n"},"why":"so"}"#),
    );
    check(
        "POST",
        "/shop.Shop/Plain",
        r#"{"in_it": {"id": "1"}}"#,
        ("/shop.Shop/Plain", r#"{"inIt":{"id":"1"}}"#),
    );
    check(
        "POST",
        "/v1/blobs/b",
        "bytes",
        ("/shop.Shop/Upload", r#"{"name":"b","content":{"contentType":"text/x","data":"Ynl0ZXM="}}"#),
    );
}

#[test]
fn what_does_not_fit_is_told() {
    let plain = shop(Input::default(), Print::default());
    let no = |shop: &Arc<Transcoder>, method, path, body| request(shop, method, path, body).unwrap_err();
    assert_eq!(no(&plain, "GET", "/v1/nothing", ""), "UnknownMethod");
    assert_eq!(no(&plain, "DELETE", "/v1/items/7", ""), "UnknownMethod");
    assert_eq!(no(&plain, "GET", "/v1/items/7?x=1", ""), "UnknownQueryParameter(\"x\")");
    assert!(no(&plain, "GET", "/v1/items/seven", "").contains("does not fit shop.Item"));
    assert!(no(&plain, "PUT", "/v1/items/7", "{").contains("is not JSON"));
    let strict = shop(Input { reject_collisions: true, ..Input::default() }, Print::default());
    assert!(no(&strict, "PUT", "/v1/items/7", r#"{"id": 8}"#).contains("different values of id"));
    assert!(request(&strict, "PUT", "/v1/items/7", r#"{"id": 7}"#).is_ok());
    let lax =
        Input { ignore_unknown: true, case_insensitive_enums: true, unescape_plus: true, ..Input::default() };
    let lax = shop(lax, Print::default());
    let found = request(&lax, "PUT", "/v1/items/7?x=1&name=a+b", r#"{"colour": "dark_red"}"#).unwrap().1;
    assert_eq!(found, r#"{"id":"7","name":"a b","colour":"DARK_RED"}"#);
}

#[test]
fn responses_are_printed_as_asked() {
    let check = |print: Print, expected: &str| {
        let shop = shop(Input::default(), print);
        let call = shop.find(&http::Method::PUT, "/v1/items/7").unwrap();
        let bytes = call.request(br#"{"colour": 1, "inIt": {"id": 2}}"#, "", true).unwrap();
        assert_eq!(call.response(&bytes).unwrap(), expected);
    };
    check(Print::default(), r#"{"id":"7","colour":"DARK_RED","inIt":{"id":"2"}}"#);
    let ints =
        Print { always_print_enums_as_ints: true, preserve_proto_field_names: true, ..Print::default() };
    check(ints, r#"{"id":"7","colour":1,"in_it":{"id":"2"}}"#);
    let lines = Print { add_whitespace: true, ..Print::default() };
    check(lines, "{\n \"id\": \"7\",\n \"colour\": \"DARK_RED\",\n \"inIt\": {\n  \"id\": \"2\"\n }\n}\n");
    let shop = shop(Input::default(), Print::default());
    let call = shop.find(&http::Method::PATCH, "/v1/items/7:change").unwrap();
    let bytes = call.request(br#"{"name": "n"}"#, "", true).unwrap();
    assert_eq!(call.response(&bytes).unwrap(), r#"{"id":"7","name":"n"}"#);
    assert_eq!(call.status_json(None, 5, "gone").as_deref(), Some(r#"{"code":5,"message":"gone"}"#));
}
