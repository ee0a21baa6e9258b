//! A shopping cart, as in the Dynamo paper: two writers that do not know of each other both
//! succeed, both carts are kept, and the next reader merges them.
//!
//!     cargo run --example cart -- 127.0.0.1:7400

use ringdove::client::{Bucket, Client, Result, Union, Values};

const CART: &str = "cart:alice";

#[tokio::main]
async fn main() -> Result<()> {
    let seed = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let carts = Client::builder().seed(seed).connect().await?.bucket("default")?;
    carts.delete(CART).observed().await?;

    // The phone and the laptop both read the empty cart, and each adds what it wants.
    let (phone, laptop) = (carts.get(CART).await?, carts.get(CART).await?);
    carts.put(CART, "apples\n").context(&phone.context).await?;
    carts.put(CART, "bread\n").context(&laptop.context).await?;
    show(&carts, "two writers").await?;

    // Whoever writes next resolves: here, while adding something.
    let updated = carts
        .update(CART, |cart: &Values| {
            let items = cart.resolve(&Union::of_lines()).unwrap_or_default();
            [&items[..], b"cheese\n"].concat()
        })
        .await?;
    println!("merged at the {}. try", updated.attempts);
    show(&carts, "merged").await?;

    // A union does not remember removals. Told to be empty, a cart stays so only until somebody
    // who saw it full writes what they saw; the paper (section 4.4) accepts the same.
    let seen = carts.get(CART).await?;
    carts.delete(CART).context(&seen.context).await?;
    carts.put(CART, "apples\nbread\n").context(&seen.context).await?;
    show(&carts, "removed here, written there").await
}

async fn show(carts: &Bucket, when: &str) -> Result<()> {
    let read = carts.get(CART).await?;
    match &read.values {
        Values::None | Values::Tombstone => println!("{when}: an empty cart"),
        Values::One(cart) => println!("{when}: one cart {:?}", cart.data),
        Values::Many(siblings) => {
            let carts: Vec<_> = siblings.iter().map(|cart| &cart.data).collect();
            println!("{when}: {} carts {carts:?}", carts.len());
        }
    }
    Ok(())
}
