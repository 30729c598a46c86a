//! Flags in, rules out, in both renderings: `testdata/<case>/in.yaml` against `out.iptables`, `out.ip6tables`, `out.nft`.

use std::fs;
use std::path::Path;

use capture::{Flags, Plan, iptables, nft, plan};

#[expect(clippy::disallowed_methods, reason = "the switch that rewrites goldens")]
fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDENS").is_some()
}

fn check(path: &Path, text: &str) {
    if updating() {
        fs::write(path, text).expect("golden is written");
        return;
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(text, golden, "{} differs; UPDATE_GOLDENS=1 rewrites it", path.display());
}

fn plan_of(yaml: &str) -> Plan {
    let flags: Flags = serde_norway::from_str(yaml).expect("flags parse");
    plan(&flags.validate().expect("flags are valid"))
}

#[test]
fn goldens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases = 0;
    for entry in fs::read_dir(root).expect("testdata") {
        let dir = entry.expect("entry").path();
        let plan = plan_of(&fs::read_to_string(dir.join("in.yaml")).expect("in.yaml"));
        check(&dir.join("out.iptables"), &iptables::restore(&plan.v4));
        if let Some(v6) = &plan.v6 {
            check(&dir.join("out.ip6tables"), &iptables::restore(v6));
        }
        check(&dir.join("out.nft"), &nft::render(&plan));
        cases += 1;
    }
    assert!(cases >= 8);
}

#[test]
fn replacing_with_the_same_changes_nothing() {
    let plan = plan_of(
        "{istio-inbound-ports: '*', istio-service-cidr: '*', redirect-dns: true, capture-all-dns: true}",
    );
    assert_eq!(iptables::replace(&iptables::restore(&plan.v4), Some(&plan.v4)), None);
}

#[test]
fn removal_takes_ours_and_leaves_the_rest() {
    let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n:MINE - [0:0]\n\
                 -A OUTPUT -j ISTIO_OUTPUT\n-A OUTPUT -j MINE\n-A ISTIO_OUTPUT -j RETURN\n-A MINE -j RETURN\nCOMMIT\n";
    let script = iptables::replace(saved, None).expect("there is something to remove");
    assert_eq!(script, "*nat\n-D OUTPUT -j ISTIO_OUTPUT\n-F ISTIO_OUTPUT\n-X ISTIO_OUTPUT\nCOMMIT\n");
    assert_eq!(iptables::replace("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", None), None);
}

#[test]
fn wrong_flags_are_named() {
    let check = |flags: Flags, expect: &str| {
        assert_eq!(flags.validate().expect_err("a wrong flag").to_string(), expect);
    };
    let base = Flags::default;
    check(Flags { envoy_port: "0".into(), ..base() }, "--envoy-port: \"0\" is not a port (1 to 65535)");
    check(
        Flags { istio_local_exclude_ports: "80,x".into(), ..base() },
        "--istio-local-exclude-ports: \"x\" is not a port (1 to 65535)",
    );
    check(
        Flags { istio_service_cidr: "10.0.0.0/33".into(), ..base() },
        "--istio-service-cidr: \"10.0.0.0/33\" is not an address range (as 10.0.0.0/8)",
    );
    check(
        Flags { istio_exclude_interfaces: "a; reboot".into(), ..base() },
        "--istio-exclude-interfaces: \"a; reboot\" is not the name of a network interface",
    );
    check(
        Flags { istio_inbound_interception_mode: "MAGIC".into(), ..base() },
        "--istio-inbound-interception-mode: \"MAGIC\" is none of REDIRECT, TPROXY, NONE",
    );
}
