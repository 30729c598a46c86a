//! Compiles the protobufs in `proto/` and gathers one descriptor set for JSON in and out: Envoy's, which the
//! `envoy-types` package carries, and ours.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to a build script through the environment")]

use std::path::{Path, PathBuf};
use std::{env, error, fs, process};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let files = ["ca", "nds", "stats", "metadata_exchange", "peer_metadata", "alpn", "workload"]
        .map(|name| format!("proto/istio/{name}.proto"));
    let ours = protox::compile(&files, ["proto"])?;
    let mut names = prost_build::Config::new();
    names.enable_type_names();
    // Type URLs as Envoy writes them; without this they would begin with the slash.
    names.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .compile_well_known_types(true)
        .include_file("istio_protos.rs")
        .compile_fds_with_config(ours.clone(), names)?;

    let mut all = FileDescriptorSet::decode(fs::read(envoy_descriptor_set()?)?.as_slice())?;
    for file in ours.file {
        if !all.file.iter().any(|known| known.name == file.name) {
            all.file.push(file);
        }
    }
    for file in &mut all.file {
        file.source_code_info = None;
        // HTTP annotations and the like: nothing reads them, and they would need their extensions decoded.
        file.options = None;
    }
    fs::write(out.join("descriptors.binpb"), all.encode_to_vec())?;
    Ok(())
}

/// Where the `envoy-types` package of this build lies: cargo knows, whether it came from a registry or a vendor folder.
fn envoy_descriptor_set() -> Result<PathBuf, Box<dyn error::Error>> {
    // cargo fetches only what it builds, and knows the whole workspace only with the rest: then it must fetch that, too.
    let output = match metadata(&["--offline"])? {
        output if output.status.success() => output,
        _ => metadata(&[])?,
    };
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata does not list envoy-types")?;
    let root = Path::new(manifest).parent().ok_or("the manifest has no folder")?;
    Ok(root.join("src/generated/types.bin"))
}

fn metadata(flags: &[&str]) -> Result<process::Output, Box<dyn error::Error>> {
    let output = process::Command::new(env::var_os("CARGO").ok_or("CARGO is not set")?)
        // Without the platform, cargo would want the sources of packages for other systems.
        .args(["metadata", "--format-version=1", "--filter-platform"])
        .arg(env::var_os("TARGET").ok_or("TARGET is not set")?)
        .args(flags)
        .output()?;
    Ok(output)
}
