//! Who is connected: what `CLIENT` shows and changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use crate::resp::Version;
use crate::time::Instant;

/// One connection, as `CLIENT LIST` shows it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    address: SocketAddr,
    since: Instant,
    pub(super) name: String,
    pub(super) library_name: String,
    pub(super) library_version: String,
    pub(super) version: Version,
}

impl Client {
    pub(super) fn new(address: SocketAddr, since: Instant) -> Self {
        let (name, library_name, library_version) = Default::default();
        Self { address, since, name, library_name, library_version, version: Version::Resp2 }
    }

    /// One line, with the names Redis uses for what there is here.
    fn describe(&self, id: u64, now: Instant, out: &mut String) {
        let resp = match self.version {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        };
        let _ = writeln!(
            out,
            "id={id} addr={} name={} age={} db=0 resp={resp} user=default lib-name={} lib-ver={}",
            self.address,
            self.name,
            (now - self.since).as_secs(),
            self.library_name,
            self.library_version,
        );
    }
}

/// All connections. Bounded by the number of connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connected: Mutex<Connected>,
}

#[derive(Debug, Default)]
struct Connected {
    last_id: u64,
    clients: BTreeMap<u64, Client>,
}

impl Clients {
    fn connected(&self) -> MutexGuard<'_, Connected> {
        self.connected.lock().expect("no method panics while it holds the lock")
    }

    /// Enters a connection, for as long as the answer lives.
    pub(super) fn register(&self, client: Client) -> Registered<'_> {
        let mut connected = self.connected();
        connected.last_id += 1;
        let id = connected.last_id;
        connected.clients.insert(id, client);
        Registered { clients: self, id }
    }

    /// Changes what is known of a connection.
    pub(super) fn update(&self, id: u64, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.connected().clients.get_mut(&id) {
            change(client);
        }
    }

    /// The name a connection has given itself; empty for none.
    pub(super) fn name(&self, id: u64) -> String {
        self.connected().clients.get(&id).map_or_else(String::new, |client| client.name.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.connected().clients.len()
    }

    /// A line for one connection, or one for each.
    pub(super) fn describe(&self, only: Option<u64>, now: Instant) -> String {
        let mut out = String::new();
        for (id, client) in &self.connected().clients {
            if only.is_none_or(|only| only == *id) {
                client.describe(*id, now, &mut out);
            }
        }
        out
    }
}

/// A connection that is in the list for as long as this lives.
pub(super) struct Registered<'a> {
    clients: &'a Clients,
    id: u64,
}

impl Registered<'_> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.clients.connected().clients.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_from_its_beginning_to_its_end() {
        let clients = Clients::default();
        let address: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        let one = clients.register(Client::new(address, Instant(0)));
        clients.update(one.id(), |client| client.name = "ann".to_owned());
        let two = clients.register(Client::new(address, Instant(0)));
        assert_eq!((clients.count(), clients.name(one.id())), (2, "ann".to_owned()));
        assert_eq!(clients.describe(None, Instant(0)).lines().count(), 2);
        let line = clients.describe(Some(one.id()), Instant(3_000_000));
        assert!(line.starts_with("id=1 addr=127.0.0.1:5000 name=ann age=3 "), "{line}");
        drop(one);
        assert_eq!(clients.count(), 1);
        drop(two);
        assert_eq!(clients.count(), 0);
    }
}
