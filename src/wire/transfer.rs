//! What the owner of a slot and its successor say to each other while the slot changes hands.
//!
//! ```text
//!   successor                                     owner
//!      │  Begin: I am to have this slot             │
//!      ├───────────────────────────────────────────▶│  notes it, durably: from now on every write
//!      │                         Begun: note 7      │  it takes was sent to the successor as well
//!      │◀───────────────────────────────────────────┤
//!      │  Page, note 7, behind key k                │
//!      ├───────────────────────────────────────────▶│
//!      │                 up to 1 MiB, in key order  │
//!      │◀───────────────────────────────────────────┤
//!      │            ... until nothing is behind     │
//!      │  HandOver, note 7                          │
//!      ├───────────────────────────────────────────▶│  gives the slot away, if the note stands
//! ```
//!
//! They travel as control messages; the objects of a page travel in one piece of bytes with a
//! layout of their own:
//!
//! ```text
//!   entry     key       varint length, bucket 0x00 name
//!             digest    16 bytes, little-endian
//!             options   1 byte: 0 no object, 1 an object follows
//!             object    varint length, the encoded object
//!   page      entries, one behind the other
//! ```
//!
//! Each page continues a *running digest* over all pages before it, which the receiver computes
//! too: a page that was lost, repeated, cut or put in another place does not pass.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::WireError;
use crate::codec::{Reader, Write as _};
use crate::ids::{NodeId, Partition, Scope};
use crate::key::Key;
use crate::limits;

/// Names one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// Whose slots are meant.
    pub scope: Scope,
    /// The partition.
    pub partition: Partition,
    /// Which of its slots, from 0.
    pub slot: u8,
}

/// A slot as somebody sees it who wants to own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotView {
    /// Which slot.
    pub id: SlotId,
    /// How often it has changed hands.
    pub version: u32,
    /// Its owner, if it has one.
    pub owner: Option<NodeId>,
    /// Who is to have it.
    pub successor: NodeId,
    /// How far buckets are that move to these slots or away from them: two who see that otherwise do
    /// not see the same slot.
    pub moves: u64,
}

/// A note that a successor copies under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The slot it is of.
    pub slot: SlotId,
    /// Its number: drawn anew for each note, so that one which fell and was made again is another.
    pub note: u64,
}

/// What a successor asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferRequest {
    /// Note that I am to have this slot.
    Begin(SlotView),
    /// What comes next?
    Page(PageRequest),
    /// Do these notes still stand?
    Confirm(Vec<Noted>),
    /// I have everything: make me the owner of these.
    HandOver(Vec<Noted>),
}

/// Asks for one page of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// The note the successor copies under.
    pub noted: Noted,
    /// Begin behind this key (bucket 0x00 name); empty for the first page.
    pub after: Blob,
    /// About how many bytes of objects.
    pub bytes: u32,
    /// Only keys and digests: the successor has most of it.
    pub digests: bool,
    /// The running digest up to here.
    pub running: u64,
}

/// What an owner answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferReply {
    /// It is noted.
    Begun {
        /// The note's number.
        note: u64,
        /// The owner may have forgotten things: what it has is not enough.
        amnesiac: bool,
    },
    /// A page.
    Page(Page),
    /// To [`TransferRequest::Confirm`]: which of the notes stand, in the order asked.
    Standing(Vec<bool>),
    /// To [`TransferRequest::HandOver`]: which of the slots were given, in the order asked.
    Given(Vec<bool>),
    /// The two go by different slots: exchange states, then ask again.
    Stale,
    /// There is no such note any more: begin again.
    Gone,
    /// Not now.
    Busy,
    /// The owner cannot read what it was asked for; the sentence says why.
    Unreadable(String),
}

/// Part of a partition, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The entries ([`PageBuilder`], [`entries`]).
    pub body: Blob,
    /// The key up to which the owner has looked, which need not be in the body: the next page
    /// begins behind it.
    pub last: Blob,
    /// Nothing is behind it.
    pub done: bool,
    /// The running digest with this page.
    pub running: u64,
    /// How long the owner would like to be left in peace, in milliseconds.
    pub wait_ms: u32,
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// The key.
    pub key: Key,
    /// The digest of its object.
    pub digest: u128,
    /// The encoded object; `None` where only the digest was asked for, or it is too large for a page.
    pub object: Option<Bytes>,
}

/// The running digest of pages, continued by one page.
#[must_use]
pub fn running_digest(before: u64, body: &[u8], last: &[u8], done: bool) -> u64 {
    let body = xxh3_64_with_seed(body, before);
    xxh3_64_with_seed(last, body ^ u64::from(done))
}

impl Page {
    /// Whether it continues the pages whose running digest is `before`, undamaged.
    #[must_use]
    pub fn continues(&self, before: u64) -> bool {
        self.running == running_digest(before, &self.body.0, &self.last.0, self.done)
    }
}

/// Writes the body of a page.
#[derive(Debug, Default)]
pub struct PageBuilder {
    body: BytesMut,
}

impl PageBuilder {
    /// Appends an entry.
    pub fn push(&mut self, key: &Key, digest: u128, object: Option<&[u8]>) {
        self.body.put_bytes_with_length(key.joined());
        self.body.put_u128_le(digest);
        self.body.put_u8(u8::from(object.is_some()));
        if let Some(object) = object {
            self.body.put_bytes_with_length(object);
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The page; it continues pages whose running digest is `before`.
    #[must_use]
    pub fn finish(self, last: &[u8], done: bool, before: u64) -> Page {
        let running = running_digest(before, &self.body, last, done);
        let (body, last) = (Blob(self.body.freeze()), Blob(Bytes::copy_from_slice(last)));
        Page { body, last, done, running, wait_ms: 0 }
    }
}

/// Reads the body of a page.
///
/// # Errors
/// When it is not what a [`PageBuilder`] writes.
pub fn entries(page: &Page) -> Result<Vec<PageEntry>, WireError> {
    body_entries(&page.body)
}

/// The entries of a page's body.
///
/// # Errors
/// As [`entries`].
pub fn body_entries(body: &Blob) -> Result<Vec<PageEntry>, WireError> {
    let mut input = Reader::new(body.0.clone());
    let mut entries = Vec::new();
    while input.remaining() > 0 {
        let most = limits::BUCKET_NAME_BYTES + 1 + limits::KEY_BYTES_HARD;
        let key = Key::from_joined(input.bytes(most, "key")?)?;
        let digest = input.u128("digest")?;
        let object = match input.u8("options")? {
            0 => None,
            1 => Some(input.bytes(limits::CONTROL_BYTES, "object")?),
            _ => return Err(crate::codec::CodecError::Invalid("options").into()),
        };
        entries.push(PageEntry { key, digest, object });
    }
    Ok(entries)
}

/// Bytes that travel in one piece, and not byte by byte as a list would.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob(pub Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taker;
        impl<'de> Visitor<'de> for Taker {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }

            // For formats that know no bytes, such as JSON.
            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Blob, A::Error> {
                let mut all = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    all.push(byte);
                }
                Ok(Blob(all.into()))
            }
        }
        deserializer.deserialize_byte_buf(Taker)
    }
}

/// What moves at one node, for people and for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// What this node is to have, by owner.
    pub incoming: Vec<Incoming>,
    /// Successors that copy from this node now, and how many slots each.
    pub outgoing: Vec<(NodeId, u32)>,
    /// Bytes a second that this node takes at most now; it is lowered while clients wait longer.
    pub rate_limit: u64,
    /// Partitions whose leftovers wait to be deleted.
    pub leftovers: u32,
    /// Partitions that this node has lost without handing them over: what it has of them is kept.
    pub set_aside: u32,
    /// What was counted since the node started, by name.
    pub counters: Vec<(String, u64)>,
}

/// What a node is to have of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// The owner; `None` where a slot has none, and all the others are copied from.
    pub from: Option<NodeId>,
    /// Slots that have changed hands since there was nothing to do.
    pub done: u32,
    /// Slots that have not.
    pub left: u32,
    /// Of those, begun.
    pub begun: u32,
    /// Bytes of objects taken since there was nothing to do.
    pub bytes: u64,
    /// Bytes a second, of late.
    pub rate: u64,
    /// Seconds until it is done, as far as that can be told.
    pub eta_s: Option<u64>,
    /// Who holds it up and why; empty while it goes on.
    pub held_up: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control;

    fn page(before: u64) -> Page {
        let mut builder = PageBuilder::default();
        let key = |name: &[u8]| Key::new(b"default", name).unwrap();
        builder.push(&key(b"a"), 1, Some(b"object"));
        builder.push(&key(b"b"), 2, None);
        builder.finish(key(b"c").joined(), true, before)
    }

    #[test]
    fn a_page_reads_back() {
        let sent = TransferReply::Page(page(7));
        let TransferReply::Page(page) = control::decode(&control::encode(&sent)).unwrap() else {
            panic!("another message");
        };
        assert!(page.continues(7));
        let read = entries(&page).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].object.as_deref(), Some(&b"object"[..]));
        assert_eq!((read[1].digest, &read[1].object), (2, &None));
    }

    #[test]
    fn a_page_that_was_changed_or_is_out_of_place_does_not_continue() {
        assert!(!page(7).continues(8));
        let mut cut = page(7);
        cut.body.0.truncate(cut.body.0.len() - 1);
        assert!(!cut.continues(7) && entries(&cut).is_err());
        let mut earlier = page(7);
        earlier.last = Blob::default();
        assert!(!earlier.continues(7));
        let mut undone = page(7);
        undone.done = false;
        assert!(!undone.continues(7));
    }
}
