//! What Envoy answers to the same templates and paths.

use super::*;

#[test]
fn templates() {
    let check = |template: &str, yes: &[&str], no: &[&str]| {
        let compiled = PathTemplate::new(template).unwrap();
        yes.iter().for_each(|path| assert!(compiled.is_match(path), "{template} {path}"));
        no.iter().for_each(|path| assert!(!compiled.is_match(path), "{template} {path}"));
    };
    check("/", &["/"], &["/a"]);
    check("/foo/bar", &["/foo/bar"], &["/foo", "/foo/bar/", "/foo/barx"]);
    check("/a.b+c", &["/a.b+c"], &["/aXb+c", "/abc"]);
    check("/x/", &["/x/"], &["/x"]);
    check(
        "/foo/*",
        &["/foo/a", "/foo/a*b", "/foo/a%2Fb"],
        &["/foo/", "/foo", "/foo/a/b", "/foo/a|b", "/foo/\""],
    );
    check("/foo/**", &["/foo/", "/foo/a/b"], &["/fo/a", "/foo"]);
    check("/foo/{a}/x/{b=**}", &["/foo/1/x/", "/foo/1/x/2/3"], &["/foo/1/y/2", "/foo/1/x"]);
    check("/**.html", &["/a/b.html", "/x.html", "/.html"], &["/a.htm"]);
    check("/**/foo", &["/x/foo", "/x/y/foo"], &["/foo"]);
    check("/x/*.js", &["/x/a.js"], &["/x/a/b.js", "/x/.js"]);
    check("/p{a}/{b}s/t", &["/px/ys/t"], &["/p/ys/t", "/px/y/t"]);
    check("/{a=*/**}/z", &["/1/2/z", "/1//z"], &["/1/z"]);
}

#[test]
fn what_is_no_template() {
    for template in [
        "",
        "foo",
        "/x/**/{a}",
        "/{a",
        "/a*b",
        "/x//y",
        "/{a=b{c}}",
        "/x y",
        "/{a=}",
        "/{a=/b}",
        "/{a=b/}",
        "/x?y",
        "/x#y",
        "/{a=**}/{b=**}",
        "/**/**",
        "/{a=*p}",
        "/**x/y",
        "/{=*}",
        "/{a=*.b}",
        "/{1a}",
        "/{a-b}",
        "/{a}{b}",
        "/{a}.{b}",
        "/{a}/{a}",
        "/{a1234567890123456}",
        "/{a}/{b}/{c}/{d}/{e}/{f}",
        "/a}",
        "/\u{e9}",
    ] {
        assert!(PathTemplate::new(template).is_err(), "{template}");
    }
    for path in
        ["", "y/{a}", "/y/{a", "/y/a}", "/y//z", "/y?k={a}", "/y/{}", "/y/ z", "/y/\u{e9}", "/y\\1", "//"]
    {
        assert!(TemplateRewrite::new(path).is_err(), "{path}");
    }
}

#[test]
fn variables_make_another_path() {
    let check = |template: &str, to: &str, path: &str, expected: &str| {
        let template = PathTemplate::new(template).unwrap();
        let rewrite = TemplateRewrite::new(to).unwrap();
        assert!(rewrite.variables().all(|name| template.has_variable(name)));
        assert_eq!(rewrite.apply(&template, path).as_deref(), Some(expected));
    };
    check("/{one}/{two}", "/{two}/{one}", "/a%20b/dog", "/dog/a%20b");
    check("/videos/{language=lang/*}/*", "/{language}", "/videos/lang/en/video.m4s", "/lang/en");
    check(
        "/content/{format}/{lang}/{id}/{file}.vtt",
        "/{lang}/{format}/{file}.vtt",
        "/content/hls/en-us/12345/en_193913.vtt",
        "/en-us/hls/en_193913.vtt",
    );
    check("/x/{rest=**}", "/y/{rest}", "/x/", "/y/");
    check("/x/{a}/{rest=**}.m3u8", "/y/{rest}/{a}.z", "/x/1/b/c.m3u8", "/y/b/c/1.z");
    check("/{a}", "/{a}{a}/*", "/1", "/11/*");
    assert!(!PathTemplate::new("/{a}").unwrap().has_variable("b"));
}
