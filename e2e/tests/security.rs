//! Mutual TLS and authorization.

use e2e::{Turn, ensure, eventually};

fn turn() -> Turn {
    Turn::take("security", &["examples/tasks/echo.yaml", "examples/tasks/outside.yaml"])
}

/// Calls until the answer has this status. A connection that stood in a worker's pool when a policy came is served once more as
/// it was before, and then closed.
#[track_caller]
fn answers(mesh: &Turn, arguments: &[&str], status: &str) {
    eventually(|| {
        let summary = mesh.call("deploy/client", arguments)?;
        ensure(summary.status(status) == 1, || format!("{arguments:?} should give {status}: {summary:?}"))
    });
}

const FROM_OUTSIDE: [&str; 1] = ["http://echo.default:8080/public"];

#[test]
fn inside_calls_are_mutual_tls_with_the_callers_identity() {
    let mesh = turn();
    let summary =
        mesh.call_until("deploy/client", &["http://echo:8080/"], |summary| summary.status("200") == 1);
    let certificate = summary.last.body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    assert!(certificate.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{summary:?}");
    assert!(certificate.contains("By=spiffe://cluster.local/ns/default/sa/echo"), "{summary:?}");
}

#[test]
fn strict_refuses_plain_text_and_permissive_takes_it() {
    let mut mesh = turn();
    let outside = |mesh: &Turn, passes: bool| {
        eventually(|| {
            let summary = mesh.call_in("outside", "deploy/client", &FROM_OUTSIDE)?;
            ensure((summary.status("200") == 1) == passes, || {
                format!("passes should be {passes}: {summary:?}")
            })
        });
    };
    outside(&mesh, true);
    mesh.apply("examples/tasks/strict.yaml");
    outside(&mesh, false);
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/"], |summary| {
        summary.status("200") == 10
    });
    mesh.apply("examples/tasks/permissive.yaml");
    outside(&mesh, true);
}

#[test]
fn only_the_allowed_principal_method_and_path_pass() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/authorization-allow.yaml");
    // Both versions of the server hear of the policy, one after the other.
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/private"], |summary| {
        summary.status("403") == 10 && summary.last.body == "RBAC: access denied"
    });
    answers(&mesh, &["http://echo:8080/public"], "200");
    answers(&mesh, &["http://echo:8080/public/more"], "200");
    answers(&mesh, &["-X", "POST", "http://echo:8080/public"], "403");
    answers(&mesh, &["http://echo:8080//private"], "403");
    // Somebody without an identity, over plain text.
    eventually(|| {
        let outside = mesh.call_in("outside", "deploy/client", &FROM_OUTSIDE)?;
        ensure(outside.status("403") == 1, || format!("{outside:?}"))
    });
}

#[test]
fn deny_goes_before_allow() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/authorization-deny.yaml");
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/admin/x"], |summary| {
        summary.status("403") == 10
    });
    for path in ["/admin", "/public/../admin/x", "/%61dmin"] {
        answers(&mesh, &[&format!("http://echo:8080{path}")], "403");
    }
    assert_eq!(mesh.call("deploy/client", &["http://echo:8080/public"]).unwrap().status("200"), 1);
}

#[test]
fn end_users_show_tokens() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/request-authentication.yaml");
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/reviews"], |summary| {
        summary.status("403") == 10
    });
    let with = |token: &str, path: &str| {
        let header = format!("authorization:Bearer {}", token.trim());
        mesh.call("deploy/client", &["-H", &header, &format!("http://echo:8080{path}")]).unwrap()
    };
    let token =
        |name: &str| std::fs::read_to_string(e2e::root().join("examples/tasks/tokens").join(name)).unwrap();
    // As in `answers`.
    let check = |token: &str, path: &str, status: &str, body: &str| {
        eventually(|| {
            let summary = with(token, path);
            let as_expected = summary.status(status) == 1 && (body.is_empty() || summary.last.body == body);
            ensure(as_expected, || format!("{path} with {token}: {summary:?}"))
        });
    };
    check(&token("jason.jwt"), "/reviews/1", "200", "");
    check(&token("guest.jwt"), "/reviews/1", "403", "RBAC: access denied");
    for path in ["/public", "/reviews"] {
        check(&token("expired.jwt"), path, "401", "Jwt is expired");
        // Issuer "nobody", unsigned.
        check("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJub2JvZHkifQ.AA", path, "401", "Jwt issuer is not configured");
        // Another user's name over the same signature.
        let (signed, guest) = (token("jason.jwt"), token("guest.jwt"));
        let parts: Vec<&str> = signed.trim().split('.').collect();
        let forged = [parts[0], guest.split('.').nth(1).unwrap(), parts[2]].join(".");
        check(&forged, path, "401", "Jwt verification fails");
    }
    assert_eq!(mesh.call("deploy/client", &["http://echo:8080/public"]).unwrap().status("200"), 1);

    let seen = with(&token("jason.jwt"), "/reviews").last.body["headers"].clone();
    assert_eq!(seen["x-user"], "jason", "{seen}");
    assert!(seen.get("authorization").is_none(), "the token went on to the application: {seen}");
}
