//! A stock Envoy and gRPC's own client under saild: `e2e/interop/xds.py` in a network namespace of its own.

use std::path::Path;
use std::process::Command;

#[test]
fn a_stock_envoy_and_grpcio_are_served() {
    for (program, argument) in [("envoy", "--version"), ("python3", "-cimport grpc_tools")] {
        let found = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
        assert!(found, "it needs {program} {argument}: `scripts/need test` installs it");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/interop/xds.py");
    let output = Command::new("unshare")
        .args(["--net", "--map-root-user", "timeout", "120", "python3"])
        .arg(script)
        .args(["--saild", env!("CARGO_BIN_EXE_saild")])
        .output()
        .expect("unshare (package util-linux) runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
