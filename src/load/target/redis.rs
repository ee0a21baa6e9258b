//! Any server that speaks RESP, redis-server among them: `GET`, `SET`, `DEL`, `MGET`.
//!
//! A write replaces what is there, whoever wrote it. Several addresses are several doors to one
//! server, used in turn.

use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;

use super::redis_link::{Link, Mailbox};
use super::redis_reply::Reply;
use super::{Basis, Failure, Found, Session, Target};
use crate::load::Error;

/// Time for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server, over some connections.
pub struct RedisTarget {
    links: Vec<Rc<Link>>,
}

impl RedisTarget {
    /// Opens `connections`, spread over the addresses. Must run within a
    /// [`LocalSet`](tokio::task::LocalSet), which is what moves its bytes.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when one cannot be opened.
    pub async fn connect(
        addresses: &[String],
        connections: usize,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let mut links = Vec::new();
        for address in addresses.iter().cycle().take(connections.max(1)) {
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            let opened = opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
            let stream = opened.map_err(|error| {
                Error::Unreachable(format!(
                    "cannot connect to {address}: {error}; is a server that speaks RESP there? \
                     --target redis://HOST:PORT names it"
                ))
            })?;
            links.push(Rc::new(Link::start(address, stream, timeout)));
        }
        Ok(Self { links })
    }
}

impl Target for RedisTarget {
    type Session = RedisSession;

    fn session(&self, number: usize) -> RedisSession {
        let link = self.links[number % self.links.len()].clone();
        RedisSession { link, mailbox: Rc::default() }
    }

    fn last_write_wins(&self) -> bool {
        false
    }
}

/// One request at a time, over a connection that others may use as well.
pub struct RedisSession {
    link: Rc<Link>,
    mailbox: Rc<Mailbox>,
}

impl Session for RedisSession {
    type Context = ();
    const CONTEXTS: bool = false;

    async fn read(&mut self, key: &[u8], found: &mut Found<()>) -> Result<(), Failure> {
        let encode = |out: &mut BytesMut| put_command(out, &[b"GET", key]);
        match self.link.ask(&self.mailbox, false, encode).await? {
            Reply::Value(value) => found.values.push(value),
            Reply::Error(line) => return Err(failure(&line)),
            _ => {}
        }
        Ok(())
    }

    async fn read_many(&mut self, keys: &[Vec<u8>]) -> Result<(), Failure> {
        let encode = |out: &mut BytesMut| {
            put_number(out, b'*', keys.len() + 1);
            put_argument(out, b"MGET");
            keys.iter().for_each(|key| put_argument(out, key));
        };
        done(self.link.ask(&self.mailbox, false, encode).await?)
    }

    async fn write(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        _basis: Basis<'_, ()>,
    ) -> Result<Option<()>, Failure> {
        let encode = |out: &mut BytesMut| match &value {
            Some(value) => put_command(out, &[b"SET", key, value]),
            None => put_command(out, &[b"DEL", key]),
        };
        done(self.link.ask(&self.mailbox, true, encode).await?).map(|()| None)
    }
}

fn done(reply: Reply) -> Result<(), Failure> {
    match reply {
        Reply::Error(line) => Err(failure(&line)),
        _ => Ok(()),
    }
}

/// What an error reply means, by its first word. Redis' own say that nothing happened; Ringdove's
/// text port says `UNKNOWN` where that is not known.
fn failure(line: &[u8]) -> Failure {
    const WORDS: [(&[u8], &str, bool); 9] = [
        (b"UNKNOWN", "unconfirmed", true),
        (b"TIMEOUT", "timeout", false),
        (b"UNAVAILABLE", "unavailable", false),
        (b"BUSY", "busy", false),
        (b"DRAINING", "draining", false),
        (b"FORMING", "forming", false),
        (b"DISKFULL", "disk_full", false),
        (b"SIBLINGS", "siblings", false),
        (b"NOAUTH", "denied", false),
    ];
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let known = WORDS.iter().find(|(name, ..)| *name == word);
    let (name, is_unknown) = known.map_or(("error", false), |(_, name, unknown)| (name, *unknown));
    Failure { name, is_unknown }
}

fn put_command(out: &mut BytesMut, arguments: &[&[u8]]) {
    put_number(out, b'*', arguments.len());
    arguments.iter().for_each(|argument| put_argument(out, argument));
}

fn put_argument(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, kind: u8, number: usize) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}
