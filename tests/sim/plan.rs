//! What a seed stands for: the cluster, the clients and the faults of a run.

use std::time::Duration;

use ringdove::ids::WriteId;
use ringdove::random::Random;
use ringdove::wire::messages::Expiry;

use crate::history::{Time, wall};
use crate::members::Change;

pub const SECOND: Time = 1_000_000;
pub const MS: Time = 1_000;

/// How long clients work before everything is healed.
const WORK: Time = 24 * SECOND;

/// A defect put into the simulated world on purpose, to see the checkers find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Disks acknowledge some commits and drop them.
    LyingDisk,
    /// A wiped node comes back under its old incarnation, and its actors start again.
    ReusedIncarnation,
    /// Contexts are ignored: every write is blind.
    IgnoredContext,
    /// A replica answers coordinators with an older state of the key.
    OlderValue,
    /// A wiped node says that its disk is complete.
    ClaimsComplete,
    /// Replicas forget records of deleted keys after a while, each on its own.
    EarlyReaping,
    /// Deleted keys are forgotten when a majority of the members has agreed.
    ReapedByQuorum,
    /// A member agrees to forget deleted keys although it keeps hints of them.
    ForgetsItsHints,
    /// Objects that anti-entropy moves are not told to those who agree to forget deleted keys.
    SyncUnseenByReaping,
    /// What is kept for a member is dropped when it is sent, delivered or not.
    ForgottenHint,
    /// An owner says too early that its successor has everything.
    ReadyTooEarly,
    /// A write leaves the leaf of its tree as it was.
    StaleLeaf,
    /// A bucket that gets another N is read by its new slots before anything was copied there.
    ArrivedTooEarly,
    /// Nothing says when a request was sent: its budget begins when it is read.
    Undated,
    /// A write that is passed on loses its expiry.
    LostExpiry,
    /// Values are forgotten that have an expiry and have not expired.
    ReapedUnexpired,
}

impl Bug {
    /// Each with the properties any of which may find it.
    pub const ALL: &[(Self, &[&str])] = &[
        (Self::LyingDisk, &["P1", "P12"]),
        (Self::ReusedIncarnation, &["P1", "P9"]),
        (Self::IgnoredContext, &["P4"]),
        (Self::OlderValue, &["P7"]),
        (Self::ClaimsComplete, &["P7"]),
        (Self::EarlyReaping, &["P2"]),
        (Self::ReapedByQuorum, &["P2"]),
        (Self::ForgetsItsHints, &["P2"]),
        (Self::SyncUnseenByReaping, &["P2"]),
        (Self::ForgottenHint, &["P1"]),
        (Self::ReadyTooEarly, &["P16"]),
        (Self::StaleLeaf, &["P6"]),
        (Self::ArrivedTooEarly, &["P7", "P16"]),
        (Self::Undated, &["P21"]),
        (Self::LostExpiry, &["P22"]),
        (Self::ReapedUnexpired, &["P1"]),
    ];
}

/// The faults of the invariants page that a run may combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    S1Halves,
    S2Isolated,
    S3Bridge,
    S4MajoritiesRing,
    S5OneWay,
    S6Flapping,
    S7Loss,
    S8Reorder,
    S9Pause,
    S10Kill,
    S11PowerCut,
    S12FailedSync,
    S13Full,
    S14Corrupt,
    S15Wipe,
    S16Restore,
    S17Clone,
    S18Clocks,
    S19Change,
    S23Slow,
}

impl Fault {
    const ANY: &[Self] = &[
        Self::S1Halves,
        Self::S2Isolated,
        Self::S3Bridge,
        Self::S4MajoritiesRing,
        Self::S5OneWay,
        Self::S6Flapping,
        Self::S7Loss,
        Self::S8Reorder,
        Self::S9Pause,
        Self::S10Kill,
        Self::S11PowerCut,
        Self::S12FailedSync,
        Self::S13Full,
        Self::S18Clocks,
        Self::S19Change,
        Self::S23Slow,
    ];
    /// Those that destroy what was acknowledged. All of a run's strike one node, its victim.
    const DESTRUCTIVE: &[Self] =
        &[Self::S14Corrupt, Self::S15Wipe, Self::S16Restore, Self::S17Clone];
}

/// One step of the fault schedule. What a step begins, a later one ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Messages from the first to the second node of each pair get lost.
    Cut(Vec<(usize, usize)>),
    Uncut(Vec<(usize, usize)>),
    /// Percentage of messages lost.
    Loss(u64),
    /// Long delays and duplicates.
    Disorder(bool),
    Pause(usize),
    Resume(usize),
    /// The process ends; what was not synced yet is lost from some point on.
    Crash(usize),
    /// Finish what is under way, then stop.
    Drain(usize),
    Start(usize),
    /// Power cut of everything; the nodes are started one by one by later steps.
    CrashAll,
    Full(usize, bool),
    Corrupt(usize, u64),
    Backup(usize),
    Wipe(usize),
    Restore(usize),
    /// The first node's disk is replaced by a copy of the second's.
    CloneOf(usize, usize),
    Skew(usize, i64),
    SlowDisk(usize, Time),
    SlowNode(usize, Time),
    Change(Change),
}

/// A run, before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Nodes that may join later.
    pub spares: usize,
    pub shards: usize,
    pub partitions: u32,
    pub n: u8,
    /// The least N that a bucket has in the course of the run.
    pub n_least: u8,
    pub sessions: u32,
    pub keys: u64,
    pub keys_last_write_wins: u64,
    /// Least W of any write: 2 where faults destroy data.
    pub w_least: u8,
    pub siblings_refuse: usize,
    /// Most operations let fallbacks stand in.
    pub sloppy: bool,
    /// Bytes a shard keeps for one member that is away.
    pub hint_bytes: u64,
    /// Reaped keys a shard remembers; none in half of all runs, for the agreement has to do without.
    pub graves: usize,
    pub max_in_flight: usize,
    pub attempt: Duration,
    /// Mean time a client thinks between operations.
    pub think: Time,
    /// Clients rest long, over more keys, every second write is a deletion, and now and then no fault is
    /// at work: so that keys are forgotten in between, and written again.
    pub calm: bool,
    /// Failure detectors call nodes down and up, at times wrongly.
    pub detects: bool,
    /// Some values expire.
    pub expires: bool,
    /// After how long values of the bucket that keeps the latest do, if their writers say nothing.
    pub ttl_ms: Option<u64>,
    /// How many in a hundred tasks that merge objects of an exchange wait for their turn, and for how
    /// long at most.
    pub task_wait: (u64, Time),
    pub faults: Vec<Fault>,
    pub victim: usize,
    pub actions: Vec<(Time, Action)>,
    pub ends: Time,
    pub bug: Option<Bug>,
}

impl Plan {
    /// The run of a seed, with a defect if one is wanted.
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed ^ 0x7269_6e67_646f_7665);
        let nodes = 3 + random.below(5) as usize;
        let n = match random.below(10) {
            0 => 2,
            1 | 2 if nodes >= 5 => 5,
            _ => 3,
        };
        let faults = draw_faults(&mut random, bug);
        let spares = if faults.contains(&Fault::S19Change) { 2 } else { 0 };
        let destructive = faults.iter().any(|fault| Fault::DESTRUCTIVE.contains(fault));
        let mut plan = Self {
            seed,
            nodes,
            spares,
            shards: 1 + random.below(2) as usize,
            // An owner's first page is the last unless a partition has several keys.
            partitions: match (32 << random.below(2), bug) {
                (_, Some(Bug::ReadyTooEarly)) => 8,
                (partitions, _) => partitions,
            },
            n,
            n_least: n,
            sessions: 6 + random.below(7) as u32,
            keys: 3 + random.below(6),
            keys_last_write_wins: 1 + random.below(3),
            w_least: if destructive { 2 } else { 1 },
            siblings_refuse: if random.chance(25) { 6 } else { 100 },
            sloppy: random.chance(60) || bug == Some(Bug::ForgottenHint),
            hint_bytes: match bug {
                // Hints would mend what anti-entropy is to find.
                Some(Bug::StaleLeaf | Bug::SyncUnseenByReaping) => 0,
                _ if random.chance(15) => 2_000,
                _ => 1 << 20,
            },
            graves: if bug.is_some() || seed.is_multiple_of(2) { 0 } else { 100 },
            max_in_flight: if random.chance(15) { 4 } else { 256 },
            attempt: Duration::from_millis(50 + random.below(150)),
            think: 0,
            calm: false,
            detects: false,
            expires: false,
            ttl_ms: None,
            task_wait: match bug {
                // From one deletion to what makes it be forgotten, as often as may be.
                Some(Bug::SyncUnseenByReaping) => (30, 13 * SECOND),
                _ => (10, 500 * MS),
            },
            faults,
            victim: random.below(nodes as u64) as usize,
            actions: Vec::new(),
            ends: WORK,
            bug,
        };
        plan.calm = plan.is_calm();
        plan.let_expire();
        plan.detects = bug.is_none() && Random::new(seed ^ 0x6465_7465_6374_0000).chance(50);
        // Some 2,000 operations a run; faults make it fewer.
        plan.think = u64::from(plan.sessions) * WORK / 9_000;
        plan.actions = plan.schedule(&mut random);
        plan.change_counts();
        if plan.calm {
            plan.think *= 8;
            plan.keys *= 3;
        }
        plan
    }

    /// Half of the runs are. Drawn apart, as changes of N are.
    fn is_calm(&self) -> bool {
        let reaping = [
            Bug::ReapedByQuorum,
            Bug::ForgetsItsHints,
            Bug::SyncUnseenByReaping,
            Bug::ReapedUnexpired,
        ];
        match self.bug {
            None => Random::new(self.seed ^ 0x6361_6c6d_0000_0000).chance(50),
            Some(bug) => reaping.contains(&bug),
        }
    }

    /// In half of the runs values expire. Drawn apart, as changes of N are.
    fn let_expire(&mut self) {
        let mut random = Random::new(self.seed ^ 0x6578_7069_7265_0000);
        let is_planted = matches!(self.bug, Some(Bug::LostExpiry | Bug::ReapedUnexpired));
        self.expires = is_planted || random.chance(50) && self.bug.is_none();
        self.ttl_ms = (self.expires && random.chance(50)).then(|| 200 + random.below(10_000));
    }

    /// What a client asks for the value of a write: in one of four that it expires. Drawn from the write,
    /// so that nothing else of the run is drawn otherwise.
    pub fn expiry(&self, write: WriteId, now: Time) -> Expiry {
        let mut random = Random::new(self.seed ^ 0x7474_6c00_0000_0000 ^ write.0 as u64);
        if !self.expires || !random.chance(25) {
            return Expiry::Bucket;
        }
        let minute = 60_000;
        match random.below(10) {
            0..3 => Expiry::After(50 + random.below(4_000)),
            3..6 => Expiry::At(wall(now, 50 + random.below(10_000) as i64)),
            // Expired for so long that it may be forgotten at once.
            6..8 => Expiry::At(wall(now, -minute * (6 + random.below(60) as i64))),
            // Not within this run, however far clocks jump in it.
            8 => Expiry::After(30 * 24 * 60 * minute as u64),
            _ => Expiry::Never,
        }
    }

    /// Adds changes of N in some of the runs, with whatever faults they have. What is drawn here is
    /// drawn apart, so that all other runs stay what they were.
    fn change_counts(&mut self) {
        let mut random = Random::new(self.seed ^ 0x6e20_746f_206d_0000);
        let is_planted = self.bug == Some(Bug::ArrivedTooEarly);
        let is_chosen = random.chance(40) && self.bug.is_none();
        if !is_chosen && !is_planted {
            return;
        }
        let most = self.nodes.min(5) as u64;
        for _ in 0..1 + random.below(4) {
            let bucket = ["sib", "lww"][random.below(2) as usize];
            let n = (2 + random.below(most - 1)) as u8;
            let at = SECOND + random.below(WORK - 8 * SECOND);
            self.n_least = self.n_least.min(n);
            self.actions.push((at, Action::Change(Change::Count(bucket, n))));
        }
        self.actions.sort_by_key(|(at, _)| *at);
    }

    fn schedule(&self, random: &mut Random) -> Vec<(Time, Action)> {
        let mut actions = Vec::new();
        // Every run ends with a power cut of everything, so that P12 is looked at in every run.
        let last = WORK - SECOND;
        let all = last - random.below(6) * SECOND;
        actions.push((all, Action::CrashAll));
        for node in 0..self.all() {
            actions.push((all + 100 * MS + random.below(700 * MS), Action::Start(node)));
        }
        if self.faults.contains(&Fault::S16Restore) {
            actions.push((SECOND + random.below(6 * SECOND), Action::Backup(self.victim)));
        }
        let mut at = SECOND / 2;
        while at < last {
            let fault = self.faults[random.below(self.faults.len() as u64) as usize];
            let end = (at + 100 * MS + random.below(4 * SECOND)).min(WORK);
            self.strike(random, fault, at, end, &mut actions);
            at += 100 * MS + random.below(2 * SECOND);
            if self.calm {
                at = at.max(end) + random.below(4 * SECOND);
            }
        }
        // Stable: steps of one moment stay in the order in which they were drawn.
        actions.sort_by_key(|(at, _)| *at);
        actions
    }

    /// Adds one fault from `begin` to `end`.
    fn strike(
        &self,
        random: &mut Random,
        fault: Fault,
        begin: Time,
        end: Time,
        actions: &mut Vec<(Time, Action)>,
    ) {
        let node = random.below(self.all() as u64) as usize;
        let victim = self.victim;
        let mut during = |start: Action, stop: Action| {
            actions.push((begin, start));
            actions.push((end, stop));
        };
        match fault {
            Fault::S1Halves | Fault::S2Isolated | Fault::S3Bridge | Fault::S4MajoritiesRing => {
                let pairs = self.partition(random, fault, node);
                during(Action::Cut(pairs.clone()), Action::Uncut(pairs));
            }
            Fault::S5OneWay => {
                let pairs = self.one_way(random, node);
                during(Action::Cut(pairs.clone()), Action::Uncut(pairs));
            }
            Fault::S6Flapping => {
                let pairs = self.one_way(random, node);
                let mut at = begin;
                while at < end {
                    let off = at + 100 * MS + random.below(SECOND);
                    actions.push((at, Action::Cut(pairs.clone())));
                    actions.push((off.min(WORK), Action::Uncut(pairs.clone())));
                    at = off + 50 * MS + random.below(500 * MS);
                }
            }
            Fault::S7Loss => during(Action::Loss(1 + random.below(30)), Action::Loss(0)),
            Fault::S8Reorder => during(Action::Disorder(true), Action::Disorder(false)),
            Fault::S9Pause => {
                let span = SECOND + random.below(8 * SECOND);
                actions.push((begin, Action::Pause(node)));
                actions.push(((begin + span).min(WORK), Action::Resume(node)));
            }
            Fault::S10Kill | Fault::S11PowerCut | Fault::S12FailedSync => {
                let stop =
                    if random.chance(30) { Action::Drain(node) } else { Action::Crash(node) };
                // Longer than anybody waits for it.
                let away = if random.chance(15) { 12 * SECOND } else { 0 };
                actions.push((begin, stop));
                actions.push(((end + away).min(WORK), Action::Start(node)));
            }
            Fault::S13Full => during(Action::Full(node, true), Action::Full(node, false)),
            Fault::S14Corrupt => {
                actions.push((begin, Action::Corrupt(victim, 1 + random.below(3))));
            }
            Fault::S15Wipe => during(Action::Wipe(victim), Action::Start(victim)),
            Fault::S16Restore => during(Action::Restore(victim), Action::Start(victim)),
            Fault::S17Clone => {
                let other =
                    (victim + 1 + random.below(self.nodes as u64 - 1) as usize) % self.nodes;
                during(Action::CloneOf(victim, other), Action::Start(victim));
            }
            Fault::S18Clocks => {
                let hour = 3_600_000;
                let skew = random.below(2 * hour) as i64 - hour as i64;
                actions.push((begin, Action::Skew(node, skew)));
            }
            Fault::S19Change => actions.push((begin, Action::Change(self.change(random, node)))),
            Fault::S23Slow => {
                if random.chance(50) {
                    let delay = 100 * MS + random.below(900 * MS);
                    during(Action::SlowDisk(node, delay), Action::SlowDisk(node, 0));
                } else {
                    let delay = 50 * MS + random.below(450 * MS);
                    during(Action::SlowNode(node, delay), Action::SlowNode(node, 0));
                }
            }
        }
    }

    /// Nodes that begin, and those that may join them.
    fn all(&self) -> usize {
        self.nodes + self.spares
    }

    fn change(&self, random: &mut Random, node: usize) -> Change {
        let spare = self.nodes + random.below(self.spares as u64) as usize;
        match random.below(10) {
            0..4 => Change::Join(spare),
            4..6 => Change::Leave(node),
            // What only the one that is gone had is lost with it.
            6..8 if self.w_least > 1 => Change::Replace(self.victim, spare),
            _ => Change::Weight(node, 50 << random.below(3)),
        }
    }

    fn partition(&self, random: &mut Random, fault: Fault, node: usize) -> Vec<(usize, usize)> {
        let all: Vec<usize> = (0..self.all()).collect();
        let turn = random.below(self.all() as u64) as usize;
        let place = |of: usize| (of + turn) % all.len();
        let separated = |a: usize, b: usize| match fault {
            Fault::S1Halves => (place(a) < all.len() / 2) != (place(b) < all.len() / 2),
            Fault::S2Isolated => a == node || b == node,
            // One node sees both halves.
            Fault::S3Bridge => {
                a != node && b != node && (place(a) < all.len() / 2) != (place(b) < all.len() / 2)
            }
            // Each sees a majority around it, no two the same.
            _ => {
                let distance = place(a).abs_diff(place(b));
                distance.min(all.len() - distance) > all.len() / 4 + usize::from(all.len() < 4)
            }
        };
        let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
        pairs.filter(|(a, b)| a != b && separated(*a, *b)).collect()
    }

    fn one_way(&self, random: &mut Random, node: usize) -> Vec<(usize, usize)> {
        let other = (node + 1 + random.below(self.all() as u64 - 1) as usize) % self.all();
        match random.below(3) {
            0 => vec![(node, other)],
            1 => vec![(node, other), (other, node)],
            _ => (0..self.all()).filter(|to| *to != node).map(|to| (node, to)).collect(),
        }
    }
}

fn draw_faults(random: &mut Random, bug: Option<Bug>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let count = 3 + random.below(4);
    while (faults.len() as u64) < count {
        let fault = Fault::ANY[random.below(Fault::ANY.len() as u64) as usize];
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    // Faults that destroy data in half of the runs, one or two of them.
    if random.chance(50) {
        for _ in 0..1 + random.below(2) {
            let place = random.below(Fault::DESTRUCTIVE.len() as u64) as usize;
            let fault = Fault::DESTRUCTIVE[place];
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    // A defect shows only where its occasion arises.
    let needed = match bug {
        Some(Bug::ReusedIncarnation | Bug::ClaimsComplete) => Some(Fault::S15Wipe),
        Some(Bug::ForgottenHint | Bug::StaleLeaf | Bug::SyncUnseenByReaping) => {
            Some(Fault::S1Halves)
        }
        Some(Bug::ReadyTooEarly) => Some(Fault::S19Change),
        Some(Bug::Undated) => Some(Fault::S9Pause),
        _ => None,
    };
    faults.extend(needed.filter(|fault| !faults.contains(fault)));
    faults
}
