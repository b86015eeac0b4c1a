//! Compiles `contracts/gateway.proto` with protox, so that nobody needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let contracts = "../../../contracts";
    println!("cargo:rerun-if-changed={contracts}/gateway.proto");
    let files = protox::compile(["gateway.proto"], [contracts])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
