//! Injected delays and failures, on bookinfo.

use std::time::Duration;

use e2e::{Turn, ensure, eventually};

const BOOKINFO: [&str; 4] = [
    "examples/bookinfo/platform/bookinfo.yaml",
    "examples/bookinfo/networking/bookinfo-gateway.yaml",
    "examples/bookinfo/networking/destination-rule-all.yaml",
    "examples/bookinfo/networking/virtual-service-all-v1.yaml",
];

fn turn() -> Turn {
    Turn::take("faults", &BOOKINFO)
}

#[test]
fn a_delay_beyond_the_patience_of_the_page() {
    let mut mesh = turn();
    mesh.apply("examples/bookinfo/networking/virtual-service-reviews-test-v2.yaml");
    mesh.apply("examples/bookinfo/networking/virtual-service-ratings-test-delay.yaml");
    eventually(|| {
        let page = mesh.product_page(Some("jason"))?;
        ensure(page.body.contains("Error fetching product reviews"), || page.body.clone())?;
        ensure((5_500..9_000).contains(&page.took.as_millis()), || format!("took {:?}", page.took))
    });
    let other = mesh.product_page(None).unwrap();
    assert!(other.took < Duration::from_secs(2) && other.body.contains("Reviews served by"), "{other:?}");
}

#[test]
fn an_abort_shows_where_the_stars_would_be() {
    let mut mesh = turn();
    mesh.apply("examples/bookinfo/networking/virtual-service-reviews-test-v2.yaml");
    mesh.apply("examples/bookinfo/networking/virtual-service-ratings-test-abort.yaml");
    eventually(|| {
        let page = mesh.product_page(Some("jason"))?;
        ensure(page.body.contains("Ratings service is currently unavailable"), || page.body.clone())
    });
}

/// Ratings as the product page's API gives them.
fn late(mesh: &Turn, requests: usize) -> usize {
    let url = format!("{}/api/v1/products/0/ratings", mesh.ingress());
    // The page waits 3 s for ratings: a request that is 5 s late comes back as an error after those.
    let one = || e2e::get(&url).unwrap().took > Duration::from_secs(2);
    std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..20).map(|_| scope.spawn(|| (0..requests / 20).filter(|_| one()).count())).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    })
}

#[test]
fn one_request_in_ten_is_late_in_both_spellings() {
    let mut mesh = turn();
    for manifest in
        ["virtual-service-ratings-delay-10-percent", "virtual-service-ratings-delay-10-percent-v1alpha3"]
    {
        mesh.apply(&format!("examples/bookinfo/networking/{manifest}.yaml"));
        eventually(|| ensure(late(&mesh, 40) > 0, || "no request was late".to_owned()));
        let late = late(&mesh, 400);
        // Mean 40, standard deviation 6.
        assert!(
            (14..=70).contains(&late),
            "{late} of 400 requests were late, which should be one in ten ({manifest})"
        );
    }
}
