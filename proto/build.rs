//! Compiles the .proto files with a pure-Rust compiler, so that no system package is needed.

use std::path::PathBuf;

const FILES: [&str; 12] = [
    "gavel/v1/epoch.proto",
    "gavel/v1/catalogue.proto",
    "gavel/v1/auction.proto",
    "gavel/v1/ads.proto",
    "gavel/v1/shard.proto",
    "gavel/v1/campaign.proto",
    "gavel/v1/control.proto",
    "gavel/v1/raft.proto",
    "gavel/v1/ledger.proto",
    "gavel/v1/frequency.proto",
    "gavel/v1/pacing.proto",
    "gavel/v1/local.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("proto");
    println!("cargo:rerun-if-changed=proto");
    let files: Vec<PathBuf> = FILES.iter().map(|f| root.join(f)).collect();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), {
        use prost::Message;
        descriptors.encode_to_vec()
    })?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
