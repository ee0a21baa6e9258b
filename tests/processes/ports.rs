//! Ports for nodes that a test starts.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that systems give to whoever connects or asks for any: nobody else takes one of
/// these between its choice here and the node's start.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port that nobody uses, over TCP or UDP, and that this process has not been given before.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that test at the same time begin at different places.
    let start = std::process::id().wrapping_mul(997);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < COUNT, "no port is free");
        let port = (FIRST + start.wrapping_add(given) % COUNT) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}
