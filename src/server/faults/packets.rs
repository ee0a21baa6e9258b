//! The socket of gossip: packets that vanish, come late, or twice.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::Faults;
use super::plan::{Carrier, Fate};
use crate::time::Instant;
use crate::wire::faults::Direction;

/// Packets that may wait here; more are lost, as they are where a network is full.
const MOST_LATE: usize = 100_000;

/// A UDP socket, as far as faults let packets through.
pub struct Packets {
    socket: UdpSocket,
    faults: Arc<Faults>,
    /// What is late, by when it is due and in which order it came.
    late: BTreeMap<(Instant, u64), Late>,
    last: u64,
}

enum Late {
    In(Vec<u8>),
    Out(SocketAddr, Vec<u8>),
}

impl Packets {
    /// Over a socket that is bound.
    #[must_use]
    pub fn new(socket: UdpSocket, faults: Arc<Faults>) -> Self {
        Self { socket, faults, late: BTreeMap::new(), last: 0 }
    }

    /// Sends a packet, unless the socket is full: packets may get lost anyway.
    pub fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        if !self.faults.concern_network() {
            let _ = self.socket.try_send_to(datagram, to);
            return;
        }
        let Fate { copies, at } = self.fate(Direction::Out, to, datagram.len());
        for _ in 0..copies {
            if at <= self.faults.now() {
                let _ = self.socket.try_send_to(datagram, to);
            } else {
                self.keep(at, Late::Out(to, datagram.to_vec()));
            }
        }
    }

    /// Waits for a packet, and sends meanwhile what was late. Nothing is lost when this is not
    /// waited for to its end.
    ///
    /// # Errors
    /// What the operating system says, mostly of a packet that was sent.
    pub async fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            self.faults.pass_pause().await;
            if let Some(length) = self.take_late(packet) {
                return Ok(length);
            }
            let due = self.late.keys().next().map(|(due, _)| *due);
            let (length, from) = tokio::select! {
                () = self.faults.sleep_until(due) => continue,
                arrived = self.socket.recv_from(packet) => arrived?,
            };
            if self.admits(from, &packet[..length]) {
                return Ok(length);
            }
        }
    }

    /// A packet that is there already.
    ///
    /// # Errors
    /// When there is none.
    pub fn try_receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            let (length, from) = self.socket.try_recv_from(packet)?;
            if self.admits(from, &packet[..length]) {
                return Ok(length);
            }
        }
    }

    /// Whether a packet that has arrived is heard now.
    fn admits(&mut self, from: SocketAddr, packet: &[u8]) -> bool {
        let is_paused = self.faults.is_paused();
        if !is_paused && !self.faults.concern_network() {
            return true;
        }
        let Fate { copies, at } = self.fate(Direction::In, from, packet.len());
        let is_now = at <= self.faults.now() && !is_paused;
        for _ in usize::from(is_now)..copies {
            self.keep(at, Late::In(packet.to_vec()));
        }
        is_now && copies > 0
    }

    fn fate(&self, way: Direction, peer: SocketAddr, bytes: usize) -> Fate {
        let peer = self.faults.sender(peer);
        self.faults.fate((peer, way, Carrier::Packet), bytes, self.faults.now())
    }

    fn keep(&mut self, at: Instant, late: Late) {
        if self.late.len() < MOST_LATE {
            self.last += 1;
            self.late.insert((at, self.last), late);
        }
    }

    /// Sends what is due, up to the first packet that is to be heard.
    fn take_late(&mut self, packet: &mut [u8]) -> Option<usize> {
        while let Some(entry) = self.late.first_entry()
            && entry.key().0 <= self.faults.now()
        {
            match entry.remove() {
                Late::Out(to, datagram) => drop(self.socket.try_send_to(&datagram, to)),
                Late::In(datagram) => {
                    packet[..datagram.len()].copy_from_slice(&datagram);
                    return Some(datagram.len());
                }
            }
        }
        None
    }
}
