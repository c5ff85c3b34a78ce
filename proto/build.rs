//! Compiles the protobuf files with protox: no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=fleetflame");
    let files = protox::compile(["fleetflame/v1/fleet.proto"], ["."])?;
    tonic_prost_build::configure()
        .bytes(".fleetflame.v1.Batch.ffz")
        // By far the largest of what a coordinator says, and the rarest.
        .boxed(".fleetflame.v1.FromCoordinator.say.arm")
        .compile_fds(files)?;
    Ok(())
}
