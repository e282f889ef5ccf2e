//! Reads a whole export and says how fast it went:
//!
//! ```text
//! cargo run --release -p nbd --example read -- /tmp/nbd.sock 262144 16
//! ```

use std::time::Instant;

use futures::{StreamExt, stream};
use nbd::client::{Address, Client, ClientOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, length, depth] = arguments.as_slice() else {
        return Err("usage: read SOCKET BYTES_PER_REQUEST REQUESTS_IN_FLIGHT".into());
    };
    let (length, depth): (u32, usize) = (length.parse()?, depth.parse()?);
    let client = Client::connect(&Address::unix(socket), ClientOptions::default()).await?;
    let size = client.info().size;
    let begun = Instant::now();
    let mut reads = stream::iter((0..size).step_by(length as usize))
        .map(|offset| {
            let length = u64::from(length).min(size - offset) as u32;
            client.read(offset, length)
        })
        .buffer_unordered(depth);
    let mut total = 0;
    let mut requests = 0;
    while let Some(data) = reads.next().await {
        total += data?.len();
        requests += 1;
    }
    drop(reads);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = total as f64 / seconds / (1 << 20) as f64;
    println!("{rate:.0} MiB/s, {:.0} requests/s", f64::from(requests) / seconds);
    client.disconnect().await;
    Ok(())
}
