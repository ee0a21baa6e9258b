//! What passes by in packets and foca does not keep: who accuses whom, and whose cluster state has
//! which version.
//!
//! Foca owns its codec and its handler of broadcasts and gives neither back, so both write into
//! one [`Hearsay`] that they share with [`super::Swim`]. The lock is never contended: all of it
//! happens within one call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use foca::{BroadcastHandler, Invalidates};

use super::identity::Identity;
use crate::codec::{CodecError, Reader};
use crate::ids::NodeId;
use crate::limits;
use crate::wire::messages::TopologyVersion;

/// Accusers of one member that are remembered: enough to see whether one node is alone in it.
const ACCUSERS: usize = 8;

/// Who suspects a member, in which of its lives.
#[derive(Clone, Debug)]
pub(super) struct Accusation {
    pub(super) generation: u32,
    pub(super) incarnation: u16,
    pub(super) by: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
pub(super) struct Hearsay {
    accusations: BTreeMap<NodeId, Accusation>,
    /// Members whose standing may have changed since [`Hearsay::take_touched`].
    touched: BTreeSet<NodeId>,
    /// The last version heard of each member, and the number of that news.
    versions: BTreeMap<NodeId, (u64, TopologyVersion)>,
    news: Vec<(NodeId, TopologyVersion)>,
    /// The generation and incarnation under which this node spoke last.
    spoke: (u32, u16),
}

/// One hearsay, and those that write it.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<Hearsay>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Hearsay> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

impl Hearsay {
    /// `by` suspects `member`. Later lives and incarnations wipe out accusations of earlier ones.
    pub(super) fn accuse(&mut self, member: &Identity, incarnation: u16, by: NodeId) {
        self.touched.insert(member.node);
        if self.accusations.len() >= limits::MEMBERS {
            return;
        }
        let life = (member.generation, incarnation);
        let fresh = || Accusation { generation: life.0, incarnation: life.1, by: BTreeSet::new() };
        let accusation = self.accusations.entry(member.node).or_insert_with(fresh);
        if life > (accusation.generation, accusation.incarnation) {
            *accusation = fresh();
        }
        if life == (accusation.generation, accusation.incarnation) && accusation.by.len() < ACCUSERS
        {
            accusation.by.insert(by);
        }
    }

    /// A packet says that `member` is alive or down: of interest where it is accused.
    pub(super) fn mention(&mut self, member: NodeId) {
        if self.accusations.contains_key(&member) {
            self.touched.insert(member);
        }
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn accusation(&self, member: NodeId) -> Option<&Accusation> {
        self.accusations.get(&member)
    }

    pub(super) fn acquit(&mut self, member: NodeId) {
        self.accusations.remove(&member);
    }

    pub(super) fn spoke(&mut self, generation: u32, incarnation: u16) {
        self.spoke = (generation, incarnation);
    }

    /// The incarnation of this node within `generation`, as it last said.
    pub(super) fn incarnation(&self, generation: u32) -> u16 {
        if self.spoke.0 == generation { self.spoke.1 } else { 0 }
    }

    /// Whether any member has said that its state has this version.
    pub(super) fn has_heard(&self, version: TopologyVersion) -> bool {
        self.versions.values().any(|(_, heard)| *heard == version)
    }

    pub(super) fn take_news(&mut self) -> Vec<(NodeId, TopologyVersion)> {
        std::mem::take(&mut self.news)
    }
}

/// The bytes of "the cluster state of `node` has `version`", number `number` of what it says.
pub(super) fn encode_version(node: NodeId, number: u64, version: TopologyVersion) -> Bytes {
    let mut out = BytesMut::with_capacity(40);
    out.put_u128_le(node.0);
    out.put_u64_le(number);
    out.put_u64_le(version.epoch);
    out.put_u64_le(version.hash);
    out.freeze()
}

/// Takes such news out of packets and has foca pass on what is new.
#[derive(Debug)]
pub(super) struct VersionNews(pub(super) Shared);

/// Newer news of a member replaces its older one.
#[derive(Debug)]
pub(super) struct NewsOf(NodeId);

impl Invalidates for NewsOf {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl BroadcastHandler<Identity> for VersionNews {
    type Key = NewsOf;
    type Error = CodecError;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Identity>,
    ) -> Result<Option<NewsOf>, CodecError> {
        let mut input = Reader::new(Bytes::copy_from_slice(data));
        let node = NodeId(input.u128("member")?);
        let number = input.u64("number")?;
        let version = TopologyVersion { epoch: input.u64("epoch")?, hash: input.u64("hash")? };
        input.finish()?;
        let mut hearsay = self.0.lock();
        if sender.is_some() {
            let known = hearsay.versions.get(&node).is_some_and(|(last, _)| *last >= number);
            if known || hearsay.versions.len() >= limits::MEMBERS {
                return Ok(None);
            }
            hearsay.news.push((node, version));
        }
        hearsay.versions.insert(node, (number, version));
        Ok(Some(NewsOf(node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accusations_add_up_within_one_incarnation_and_end_with_the_next() {
        let address = "127.0.0.1:1".parse().unwrap();
        let accused = Identity::new(NodeId(9), 1, address);
        let mut hearsay = Hearsay::default();
        let by = |hearsay: &Hearsay| {
            let accusation = hearsay.accusation(NodeId(9)).unwrap();
            accusation.by.iter().map(|node| node.0).collect::<Vec<_>>()
        };
        hearsay.accuse(&accused, 0, NodeId(1));
        hearsay.accuse(&accused, 0, NodeId(2));
        assert_eq!(by(&hearsay), [1, 2]);
        hearsay.accuse(&accused, 1, NodeId(3));
        hearsay.accuse(&accused, 0, NodeId(4));
        assert_eq!(by(&hearsay), [3], "an old accusation says nothing about the new incarnation");
    }

    #[test]
    fn news_is_passed_on_once_and_never_backwards() {
        let shared = Shared::new();
        let mut handler = VersionNews(shared.clone());
        let from = Identity::new(NodeId(1), 1, "127.0.0.1:1".parse().unwrap());
        let version = |epoch| TopologyVersion { epoch, hash: epoch };
        let mut hear = |number| {
            let item = encode_version(NodeId(2), number, version(number));
            handler.receive_item(&item, Some(&from)).unwrap().is_some()
        };
        assert_eq!([5, 5, 4, 6].map(&mut hear), [true, false, false, true]);
        assert_eq!(shared.lock().take_news(), [(NodeId(2), version(5)), (NodeId(2), version(6))]);
        assert!(handler.receive_item(&[0; 39], Some(&from)).is_err());
    }
}
