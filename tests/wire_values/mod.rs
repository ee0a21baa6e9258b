//! Random messages of every type, from a seed, for the tests of the framed protocol.

use bytes::{Bytes, BytesMut};
use ringdove::causality::{Actor, Dot, Hlc};
use ringdove::ids::{Incarnation, NodeId, Partition, Scope, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::random::Random;
use ringdove::time::{Instant, WallMs};
use ringdove::wire::codec::{encode_request, encode_response};
use ringdove::wire::faults::{Direction, Fault, FaultKind, FaultOrder, Passage, Peers};
use ringdove::wire::frame::{self, Frame, Marks};
use ringdove::wire::greeting::{Hello, Introduction, Refused, Role, Welcome};
use ringdove::wire::messages::*;
use ringdove::wire::reap::{Candidate, HeldUp, ReapReply, ReapRequest, ReapStatus, Round};
use ringdove::wire::transfer::{
    Blob, Noted, PageBuilder, PageRequest, SlotId, SlotView, TransferReply, TransferRequest,
};

/// Draws messages. Every variant of every type comes up, and so do the edges of numbers.
pub struct Values(pub Random);

impl Values {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len() as u64) as usize].clone()
    }

    fn flag(&mut self) -> bool {
        self.0.chance(50)
    }

    /// 0 and the largest as often as anything between.
    fn number(&mut self) -> u64 {
        let any = self.0.next_u64() >> self.0.below(64);
        self.one_of(&[0, 1, any, any, u64::MAX])
    }

    fn number_u128(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    fn scope(&mut self) -> Scope {
        Scope { n: self.small(), number: self.number() }
    }

    fn small(&mut self) -> u8 {
        self.number() as u8
    }

    pub fn bytes(&mut self, most: u64) -> Bytes {
        let length = self.0.below(most + 1);
        (0..length).map(|_| self.0.next_u64() as u8).collect()
    }

    fn text(&mut self, most: u64) -> String {
        let length = self.0.below(most / 2 + 1);
        (0..length).map(|_| self.one_of(&['a', 'Z', '0', '-', ' ', 'é'])).collect()
    }

    pub fn key(&mut self) -> Key {
        let longest = "n".repeat(limits::BUCKET_NAME_BYTES);
        let bucket = self.one_of(&["b", "carts", &longest]);
        let mut name = self.bytes(200).to_vec();
        name.push(0);
        Key::new(bucket.as_bytes(), &name).unwrap()
    }

    fn level(&mut self) -> Level {
        let count = 1 + self.0.below(limits::REPLICAS_MAX.into()) as u8;
        self.one_of(&[Level::Default, Level::Quorum, Level::All, Level::Count(count)])
    }

    fn budget_ms(&mut self) -> u32 {
        self.0.below(u64::from(limits::BUDGET_MS_MAX) + 1) as u32
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.number_u128())
    }

    fn topology(&mut self) -> TopologyVersion {
        TopologyVersion { epoch: self.number(), hash: self.number() }
    }

    pub fn get(&mut self) -> Request {
        let (r, pr) = (self.level(), self.level());
        let (key, budget_ms, trace) = (self.key(), self.budget_ms(), self.flag());
        Request::Get(Get { key, r, pr, budget_ms, strict: self.flag(), trace })
    }

    pub fn put(&mut self) -> Request {
        let context = self.bytes(90);
        let basis = self.one_of(&[Basis::Context(context), Basis::Blind, Basis::Observed]);
        let conditions = [Condition::None, Condition::Absent, Condition::Present];
        let condition = match basis {
            Basis::Observed => self.one_of(&conditions),
            Basis::Context(_) => self.one_of(&[Condition::None, Condition::Unchanged]),
            Basis::Blind => Condition::None,
        };
        Request::Put(Put {
            key: self.key(),
            write_id: WriteId(self.number_u128()),
            attempt: self.small(),
            basis,
            condition,
            value: self.flag().then(|| self.bytes(300)),
            expiry: self.expiry(),
            w: self.level(),
            pw: self.level(),
            strict: self.flag(),
            budget_ms: self.budget_ms(),
        })
    }

    fn expiry(&mut self) -> Expiry {
        let (span, at) = (self.number(), self.number() >> 1);
        let at = Expiry::At(WallMs(at));
        self.one_of(&[Expiry::Bucket, Expiry::After(span), at, Expiry::Never])
    }

    pub fn read(&mut self) -> Request {
        let (key, digest, fallback) = (self.key(), self.flag(), self.flag());
        let (slots, budget_ms) = (self.number(), self.budget_ms());
        Request::Read(Read { key, digest, fallback, slots, budget_ms })
    }

    pub fn write(&mut self) -> Request {
        let hint = Purpose::Hint(NodeId(self.number_u128()));
        let (handoff, repair) = (Purpose::Handoff, Purpose::Repair);
        let purpose = self.one_of(&[Purpose::Replicate, repair, Purpose::Restore, hint, handoff]);
        let (key, object, budget_ms) = (self.key(), self.bytes(300), self.budget_ms());
        Request::Write(Write { key, object, purpose, slots: self.number(), budget_ms })
    }

    pub fn control(&mut self) -> Request {
        let settings = BucketSettings {
            n: self.small(),
            r: self.level(),
            w: self.level(),
            conflicts: self.one_of(&[Conflicts::Siblings, Conflicts::LastWriteWins]),
            ttl_ms: self.flag().then(|| self.number()),
        };
        let (name, bytes) = (self.text(40), self.bytes(200).to_vec());
        let (partition, count) = (self.number() as u16, self.number() as u32);
        let (member, force) = (self.node(), self.flag());
        let mark = force.then(|| self.number());
        let transfer = self.transfer_request();
        let change = self.one_of(&[
            PlannedChange::Join,
            PlannedChange::Leave,
            PlannedChange::Weight(count),
            PlannedChange::Zone(name.clone()),
            PlannedChange::Replace { dead: NodeId(partition.into()) },
        ]);
        let reap = self.reap_request();
        let which = self.one_of(&[Which::Live, Which::Conflicts]);
        let (bucket, prefix) = (name.clone(), bytes.clone());
        let (cursor, r) = (self.number(), self.level());
        let listing = Listing { bucket, which, prefix, cursor, count, r };
        let (bucket, prefix) = (name.clone(), bytes.clone());
        let (from, slots) = (self.number(), self.number());
        let owner_listing = OwnerListing { bucket, which, prefix, partition, from, count, slots };
        let fault = self.fault_order(name.clone());
        let gossip = Control::Gossip { digest: self.number(), view: bytes.clone() };
        Request::Control(self.one_of(&[
            gossip,
            Control::Topology,
            Control::Exchange(bytes.clone()),
            Control::CreateBucket { name: name.clone(), settings },
            Control::Status,
            Control::Explain { bucket: name.clone(), key: bytes.clone() },
            Control::Keys(listing),
            Control::OwnerKeys(owner_listing),
            Control::Tallies,
            Control::Tally(vec![member]),
            Control::Outliers,
            Control::Digest,
            Control::SetBucket { name: name.clone(), settings },
            Control::StageChange { member, change, force },
            Control::CommitPlan { mark },
            Control::AbortPlan,
            Control::Hints,
            Control::Transfer(transfer),
            Control::Transfers,
            Control::Survey,
            Control::SyncStatus,
            Control::SyncNow,
            Control::SyncPause(true),
            Control::SyncPairs { from: (Partition(7), member), count: 1000 },
            Control::Fault(fault),
            Control::Reap(reap),
            Control::Reaping,
        ]))
    }

    fn fault_order(&mut self, name: String) -> FaultOrder {
        let passage = Passage { peers: Peers::Named(name), direction: Direction::In };
        let kind = FaultKind::Delay { passage, by_ms: self.number(), jitter_ms: self.number() };
        let fault = Fault { kind, for_ms: self.flag().then_some(7), seed: self.number() };
        self.one_of(&[FaultOrder::Add(fault), FaultOrder::List, FaultOrder::Clear(None)])
    }

    fn noted(&mut self) -> Noted {
        let (partition, slot) = (Partition(self.number() as u16), self.small());
        Noted { slot: SlotId { scope: self.scope(), partition, slot }, note: self.number() }
    }

    fn reap_request(&mut self) -> ReapRequest {
        let round = Round { reaper: NodeId(self.number_u128()), number: self.number() };
        let topology = TopologyVersion { epoch: self.number(), hash: self.number() };
        let key = Blob(self.bytes(40));
        let keys = vec![Candidate { key, digest: self.number_u128() }];
        self.one_of(&[
            ReapRequest::Watch { round, topology, keys: keys.clone() },
            ReapRequest::Confirm(round),
            ReapRequest::Drop(keys),
            ReapRequest::Barrier,
        ])
    }

    fn reap_reply(&mut self) -> ReapReply {
        let standing = vec![self.flag(), self.flag(), self.flag()];
        let why = HeldUp::AwayFrom(NodeId(self.number_u128()));
        let not_now = [ReapReply::NotNow(HeldUp::Keys), ReapReply::NotNow(why)];
        let choices = [ReapReply::Standing(standing), ReapReply::Done];
        let choices: Vec<ReapReply> = choices.into_iter().chain(not_now).collect();
        self.one_of(&choices)
    }

    fn reap_status(&mut self) -> ReapStatus {
        ReapStatus {
            waiting: self.number(),
            bytes: self.number(),
            oldest: self.flag().then(|| WallMs(self.number())),
            held_up: vec![(NodeId(self.number_u128()), HeldUp::Away, self.number())],
            counters: vec![(self.text(20), self.number())],
        }
    }

    fn transfer_request(&mut self) -> TransferRequest {
        let noted = self.noted();
        let several: Vec<Noted> = (0..self.0.below(5)).map(|_| self.noted()).collect();
        let (successor, owner) = (self.node(), self.node());
        let owner = self.flag().then_some(owner);
        let view = SlotView {
            id: noted.slot,
            version: self.number() as u32,
            owner,
            successor,
            moves: self.number(),
        };
        let page = PageRequest {
            noted,
            after: Blob(self.bytes(90)),
            bytes: self.number() as u32,
            digests: self.flag(),
            running: self.number(),
        };
        self.one_of(&[
            TransferRequest::Begin(view),
            TransferRequest::Page(page),
            TransferRequest::Confirm(several.clone()),
            TransferRequest::HandOver(several),
        ])
    }

    fn transfer_reply(&mut self) -> TransferReply {
        let mut builder = PageBuilder::default();
        for _ in 0..self.0.below(4) {
            let (key, object) = (self.key(), self.bytes(100));
            builder.push(&key, self.number_u128(), self.flag().then_some(&object[..]));
        }
        let (last, done, before) = (self.bytes(30), self.flag(), self.number());
        let page = builder.finish(&last, done, before);
        let given: Vec<bool> = (0..self.0.below(5)).map(|_| self.flag()).collect();
        let begun = TransferReply::Begun { note: self.number(), amnesiac: self.flag() };
        let unreadable = TransferReply::Unreadable(self.text(60));
        self.one_of(&[
            begun,
            TransferReply::Page(page),
            TransferReply::Standing(given.clone()),
            TransferReply::Given(given),
            TransferReply::Stale,
            TransferReply::Gone,
            TransferReply::Busy,
            unreadable,
        ])
    }

    fn receipt(&mut self) -> Receipt {
        Receipt {
            n: self.small(),
            needed: self.small(),
            acks: self.small(),
            primaries: self.small(),
            fallbacks: self.small(),
            fsynced: self.small(),
            zones: self.small(),
            coordinator: self.node(),
            micros: self.number() as u32,
            topology: self.topology(),
        }
    }

    fn value(&mut self) -> Value {
        let actor = Actor { incarnation: Incarnation(self.number()), k: self.number() };
        Value {
            dot: Dot { actor, counter: self.number() },
            write_id: WriteId(self.number_u128()),
            hlc: Hlc(self.number()),
            expires_at: self.flag().then(|| WallMs(self.number())),
            data: self.bytes(200),
        }
    }

    fn hop(&mut self) -> Hop {
        Hop { node: self.node(), micros: self.number() as u32, what: self.text(60) }
    }

    pub fn got(&mut self) -> Response {
        let (siblings, hops) = (self.0.below(5), self.0.below(4));
        Response::Got(Got {
            context: self.bytes(90),
            values: (0..siblings).map(|_| self.value()).collect(),
            deleted: self.flag(),
            receipt: self.receipt(),
            trace: (0..hops).map(|_| self.hop()).collect(),
        })
    }

    pub fn done(&mut self) -> Response {
        Response::Done(Done { context: self.bytes(90), receipt: self.receipt() })
    }

    pub fn held(&mut self) -> Response {
        let (object, digest) = (self.bytes(300), self.number_u128());
        let choices = [HeldObject::Missing, HeldObject::Full(object), HeldObject::Digest(digest)];
        Response::Held(Held { object: self.one_of(&choices), amnesiac: self.flag() })
    }

    pub fn stored(&mut self) -> Response {
        Response::Stored(Stored { fsynced: self.flag() })
    }

    fn status(&mut self) -> NodeStatus {
        let (peers, counters) = (self.0.below(4), self.0.below(4));
        NodeStatus {
            id: self.node(),
            name: self.text(40),
            version: self.text(20),
            uptime_ms: self.number(),
            state: self.text(20),
            topology: self.topology(),
            keys: self.number(),
            amnesiac: self.flag(),
            peers: (0..peers)
                .map(|_| PeerStatus {
                    id: self.node(),
                    name: self.text(40),
                    address: self.text(40),
                    zone: self.text(40),
                    up: self.flag(),
                    liveness: Liveness {
                        state: self.text(10),
                        since_ms: self.number(),
                        suspected_by: (0..self.0.below(3)).map(|_| self.node()).collect(),
                        refuted_ms: self.flag().then(|| self.number()),
                        flaps: self.number() as u32,
                    },
                    share: self.number() as u32,
                })
                .collect(),
            counters: (0..counters).map(|_| (self.text(20), self.number())).collect(),
        }
    }

    fn explanation(&mut self) -> Explanation {
        let (replicas, fallbacks) = (self.0.below(4), self.0.below(4));
        Explanation {
            token: self.number(),
            partition: self.number() as u16,
            n: self.small(),
            replicas: (0..replicas)
                .map(|_| ReplicaView {
                    node: self.node(),
                    name: self.text(40),
                    state: self.text(20),
                    clock: self.text(60),
                    siblings: self.number() as u32,
                    tombstones: self.number() as u32,
                    bytes: self.number(),
                    digest: self.number_u128(),
                })
                .collect(),
            fallbacks: (0..fallbacks).map(|_| self.node()).collect(),
        }
    }

    fn listed(&mut self) -> Listed {
        let siblings = self.number() as u16;
        Listed { key: self.bytes(30).to_vec(), siblings, bytes: self.number() as u32 }
    }

    pub fn control_reply(&mut self) -> Response {
        let bytes = self.bytes(200).to_vec();
        let keys: Vec<Listed> = (0..self.0.below(5)).map(|_| self.listed()).collect();
        let outliers =
            keys.iter().map(|listed| Outlier { bucket: self.text(9), listed: listed.clone() });
        let siblings: Vec<Outlier> = outliers.collect();
        let (largest, seen) = (siblings.clone(), self.number());
        let outliers = Outliers { siblings, largest, seen, complete: self.flag() };
        let owner_page = OwnerPage {
            keys: keys.clone(),
            next: self.flag().then(|| self.number()),
            complete: self.flag(),
        };
        let buckets = vec![BucketTally {
            bucket: self.text(9),
            keys: self.number(),
            ..BucketTally::default()
        }];
        let (silent, uncounted) = (vec![self.text(9)], 7);
        let choices = [
            ControlReply::Topology(bytes),
            ControlReply::Ok,
            ControlReply::Gossip(self.bytes(200).to_vec()),
            ControlReply::Status(self.status()),
            ControlReply::Explain(self.explanation()),
            ControlReply::Keys(ListingPage { cursor: self.number(), keys }),
            ControlReply::OwnerKeys(owner_page),
            ControlReply::Tally(NodeTally { buckets: buckets.clone(), uncounted }),
            ControlReply::Tallies(ClusterTally { buckets, silent, uncounted }),
            ControlReply::Outliers(outliers),
            ControlReply::Digest { objects: self.number(), digest: self.number_u128() },
            ControlReply::Transfer(self.transfer_reply()),
            ControlReply::Reap(self.reap_reply()),
            ControlReply::Reaping(self.reap_status()),
        ];
        Response::Control(self.one_of(&choices))
    }

    fn failure_code(&mut self) -> FailureCode {
        use FailureCode::*;
        self.one_of(&[
            Unavailable,
            Unknown,
            Timeout,
            Busy,
            Exists,
            Absent,
            Siblings,
            BadContext,
            TooLarge,
            Draining,
            NoBucket,
            Forming,
            DiskFull,
            Corrupt,
            Denied,
            Invalid,
            Internal,
        ])
    }

    pub fn failed(&mut self) -> Response {
        Response::Failed(Failure {
            code: self.failure_code(),
            outcome: self.one_of(&[Outcome::NotApplied, Outcome::Unknown]),
            acks: self.small(),
            needed: self.small(),
            write_id: self.flag().then(|| WriteId(self.number_u128())),
            context: self.bytes(90),
            retry_after_ms: self.number() as u32,
            message: self.text(100),
        })
    }

    pub fn hello(&mut self) -> Hello {
        let newest_version = 1 + self.0.below(255) as u8;
        let role = self.one_of(&[Role::Client, Role::Peer]);
        Hello {
            oldest_version: 1 + self.0.below(newest_version.into()) as u8,
            newest_version,
            features: self.number(),
            role,
            cluster: self.text(24),
            node: (role == Role::Peer).then(|| Introduction {
                id: self.node(),
                incarnation: Incarnation(self.number()),
                name: self.text(24),
                address: self.text(120),
            }),
            agent: self.text(24),
        }
    }

    pub fn welcome(&mut self) -> Welcome {
        Welcome {
            version: self.small(),
            features: self.number(),
            cluster: self.text(24),
            node: self.node(),
            incarnation: Incarnation(self.number()),
            name: self.text(24),
            clock: Instant(self.number()),
            topology: self.topology(),
            key_bytes: self.number() as u32,
            value_bytes: self.number() as u32,
        }
    }

    pub fn refused(&mut self) -> Refused {
        Refused { code: self.failure_code(), message: self.text(100) }
    }

    /// A request of each kind in turn.
    pub fn request(&mut self, turn: u64) -> Request {
        let kinds = [Self::get, Self::put, Self::read, Self::write, Self::control];
        kinds[(turn % 5) as usize](self)
    }

    /// An answer of each kind in turn.
    pub fn response(&mut self, turn: u64) -> Response {
        let kinds =
            [Self::got, Self::done, Self::held, Self::stored, Self::control_reply, Self::failed];
        kinds[(turn % 6) as usize](self)
    }
}

/// All that a frame can say of a request.
pub fn marks(values: &mut Values) -> Marks {
    let sent = values.0.chance(50).then(|| Instant(values.number()));
    Marks { forwarded: values.0.chance(50), sent }
}

/// The one frame in `bytes`.
pub fn only_frame(mut bytes: BytesMut) -> Frame {
    let frame = frame::decode(&mut bytes, limits::FRAME_PAYLOAD_BYTES).unwrap().unwrap();
    assert!(bytes.is_empty());
    frame
}

/// `request` as a frame.
pub fn request_bytes(request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    encode_request(&mut out, 7, Marks::NONE, request).unwrap();
    out
}

/// `response` as a frame.
pub fn response_bytes(response: &Response) -> BytesMut {
    let mut out = BytesMut::new();
    encode_response(&mut out, 7, response);
    out
}
