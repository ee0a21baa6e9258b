//! Writes a key, reads it back, and shows what the cluster says it achieved.
//!
//!     cargo run --example hello -- 127.0.0.1:7400

use ringdove::client::{Client, Level, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let seed = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::builder().seed(seed).connect().await?;
    let topology = client.topology();
    println!("cluster {:?}:", topology.state().cluster);
    for (id, member) in topology.state().serving() {
        println!("  {} at {} ({})", member.name(), member.address(), id.short());
    }

    let bucket = client.bucket("default")?;
    let written = bucket.put("greeting", "hello, ring").observed().w(Level::Quorum).await?;
    let receipt = written.receipt;
    println!(
        "written: {} of {} replicas have it, {} of them on disk, after {} us",
        receipt.acks, receipt.n, receipt.fsynced, receipt.micros
    );

    let read = bucket.get("greeting").await?;
    for value in read.values.as_slice() {
        println!("read: {:?}, written as {}", value.data, value.write_id);
    }
    println!("context for the next write: {}", read.context);
    Ok(())
}
