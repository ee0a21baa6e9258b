//! Ports for nodes that a test starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpSocket;

/// Below those that systems give to whoever connects or asks for any: nobody else takes one of
/// these between its choice here and the node's start.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port that nobody uses, and that this process has not been given before.
///
/// It is looked at without listening: while another thread starts a process, that has everything
/// this one has open, until it is another program. A port that was listened to is open to whoever
/// connects for so long, and then closed.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes that test at the same time begin at different places.
    let start = std::process::id().wrapping_mul(997);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < COUNT, "no port is free");
        let port = (FIRST + start.wrapping_add(given) % COUNT) as u16;
        let socket = TcpSocket::new_v4().expect("there are files left to open");
        socket.set_reuseaddr(true).expect("it is a TCP socket");
        if socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() {
            return port;
        }
    }
}
