//! Compiles the interfaces of the stores that profiles are pushed to, with protox: no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=wire");
    let files = protox::compile(["pyroscope.proto", "parca.proto"], ["wire"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
