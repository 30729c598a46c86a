//! Routing by header and by weight, on bookinfo.

use e2e::{Turn, ensure, eventually};

const BOOKINFO: [&str; 2] =
    ["examples/bookinfo/platform/bookinfo.yaml", "examples/bookinfo/networking/bookinfo-gateway.yaml"];

const SUBSETS: &str = "examples/bookinfo/networking/destination-rule-all.yaml";

fn turn() -> Turn {
    Turn::take("routing", &BOOKINFO)
}

/// The colour of the stars on the page; "none" where it has reviews without stars.
fn stars(mesh: &Turn, user: Option<&str>) -> Result<&'static str, String> {
    let page = mesh.product_page(user)?;
    ensure(page.status == 200, || format!("{page:?}"))?;
    ensure(page.body.contains("Reviews served by"), || format!("no reviews: {}", page.body))?;
    Ok(if page.body.contains("stars black") {
        "black"
    } else if page.body.contains("stars red") {
        "red"
    } else {
        "none"
    })
}

#[test]
fn jason_sees_v2_and_everybody_else_v1() {
    let mut mesh = turn();
    mesh.apply(SUBSETS);
    mesh.apply("examples/bookinfo/networking/virtual-service-all-v1.yaml");
    mesh.apply("examples/bookinfo/networking/virtual-service-reviews-test-v2.yaml");
    eventually(|| {
        for _ in 0..5 {
            let (jason, other) = (stars(&mesh, Some("jason"))?, stars(&mesh, None)?);
            ensure((jason, other) == ("black", "none"), || {
                format!("jason sees {jason}, others see {other}")
            })?;
        }
        Ok(())
    });
}

#[test]
fn weights_split_requests() {
    let mut mesh = turn();
    mesh.apply(SUBSETS);
    mesh.apply("examples/bookinfo/networking/virtual-service-reviews-50-v3.yaml");
    eventually(|| {
        let seen: Vec<_> = (0..20).map(|_| stars(&mesh, None)).collect::<Result<_, _>>()?;
        ensure(!seen.contains(&"black"), || format!("v2 still answers: {seen:?}"))
    });
    let red = (0..200).filter(|_| stars(&mesh, None).unwrap() == "red").count();
    assert!((70..=130).contains(&red), "{red} of 200 requests went to v3, which should have half");
}

#[test]
fn what_is_said_to_be_tried_shows_red_stars_to_everybody() {
    let mut mesh = turn();
    let status = mesh.run(&["status"]);
    let said = status.lines().skip_while(|line| *line != "Try:").find_map(|line| line.split_once(" apply "));
    let (_, arguments) = said.unwrap_or_else(|| panic!("nothing is said to be applied: {status}"));
    for manifest in arguments.split(' ').filter(|argument| *argument != "-f") {
        mesh.apply(manifest);
    }
    eventually(|| {
        let seen: Vec<_> = (0..10).map(|_| stars(&mesh, None)).collect::<Result<_, _>>()?;
        ensure(seen.iter().all(|stars| *stars == "red"), || format!("{seen:?}"))
    });
}

#[test]
fn without_a_route_every_version_answers() {
    let mesh = turn();
    let mut seen = std::collections::BTreeSet::new();
    eventually(|| {
        seen.insert(stars(&mesh, None)?);
        ensure(seen.len() == 3, || format!("only {seen:?} so far"))
    });
}
