//! A counter that many tasks raise at the same time, without losing a count.
//!
//! A bare number could not be merged: of two siblings "6", nobody knows whether they are the same
//! six. So the value has a line for each writer, "name count", which only that writer raises; of
//! two siblings the higher count of each line is right. This is a grow-only counter (Shapiro and
//! others, "A comprehensive study of Convergent and Commutative Replicated Data Types", 2011).
//!
//!     cargo run --example counter_update -- 127.0.0.1:7400

use std::collections::BTreeMap;

use ringdove::client::{Bucket, Client, Outcome, Result, Values};

const WRITERS: usize = 4;
const ROUNDS: u64 = 25;

#[tokio::main]
async fn main() -> Result<()> {
    let seed = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let bucket = Client::builder().seed(seed).connect().await?.bucket("default")?;
    bucket.delete("visits").observed().await?;

    let writers = (0..WRITERS).map(|writer| tokio::spawn(count(bucket.clone(), writer)));
    let writers: Vec<_> = writers.collect();
    let mut expected = 0;
    for writer in writers {
        expected += writer.await.expect("a writer does not panic")?;
    }
    let counts = merged(&bucket.get("visits").await?.values);
    println!("{counts:?}: {} of {expected} visits", counts.values().sum::<u64>());
    Ok(())
}

/// Counts to `ROUNDS`. The writer knows its own count, so writing it twice does no harm, and it
/// may go on after a write of which it does not know what became.
async fn count(bucket: Bucket, writer: usize) -> Result<u64> {
    let name = format!("writer-{writer}");
    for round in 1..=ROUNDS {
        let name = name.clone();
        let update = bucket.update("visits", move |values: &Values| {
            let mut counts = merged(values);
            counts.insert(name.clone(), round);
            counts.iter().map(|(name, count)| format!("{name} {count}\n")).collect::<String>()
        });
        match update.attempts(5).await {
            Err(error) if error.outcome() != Outcome::Unknown => return Err(error),
            _ => {}
        }
    }
    Ok(ROUNDS)
}

/// The highest count of each writer, over all siblings.
fn merged(values: &Values) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for value in values.as_slice() {
        for line in String::from_utf8_lossy(&value.data).lines() {
            let Some((name, count)) = line.split_once(' ') else { continue };
            let count = count.parse().unwrap_or(0);
            let most = counts.entry(name.to_owned()).or_insert(count);
            *most = count.max(*most);
        }
    }
    counts
}
