//! Commands that look inside: where keys are and who the members are.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Server;
use super::answers;
use super::settings::Settings;
use super::sync;
use crate::membership::{MemberEntry, Topology};
use crate::resp::{Command, Reply};
use crate::time::WallMs;
use crate::wire::messages::{
    Control, ControlReply, Explanation, Failure, Goals, MemberReport, MemberState, NodeStatus,
    Open, ReplicaView, Request, Response, Waiting,
};
use crate::wire::transfer::{Incoming, TransferStatus};

/// How often somebody who waits has all members asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait: a day.
const WAIT_MS_MAX: u64 = 86_400_000;

/// Does one of these commands, on behalf of one connection.
pub(super) struct Inside {
    pub(super) server: Arc<Server>,
    pub(super) settings: Settings,
}

impl Inside {
    /// Answers `RD.EXPLAIN`, `RD.RING`, `RD.NODES`, `RD.TRANSFERS`, `RD.DIGEST`, `RD.HINTS`,
    /// `RD.TOMBSTONES`, `RD.SYNC` or `RD.WAIT`.
    pub(super) async fn run(self, command: Command) -> Reply {
        let answered = match command {
            Command::Explain { key } => self.explain(&key).await,
            Command::Ring => Ok(self.ring()),
            Command::Nodes => self.control(Control::Status).await.map(|reply| match reply {
                ControlReply::Status(status) => nodes(&status, &self.server.node.topology()),
                _ => answers::unexpected(),
            }),
            Command::Transfers => self.control(Control::Transfers).await.map(|reply| match reply {
                ControlReply::Transfers(status) => transfers(&status),
                _ => answers::unexpected(),
            }),
            Command::Digest => self.control(Control::Digest).await.map(|reply| match reply {
                ControlReply::Digest { objects, digest } => Reply::map([
                    ("objects", Reply::Integer(objects as i64)),
                    ("digest", Reply::text(format!("{digest:032x}"))),
                ]),
                _ => answers::unexpected(),
            }),
            Command::Hints => Ok(hints(&self.server.node.survey().await)),
            Command::Tombstones => {
                let now = self.server.node.clock.now().wall;
                Ok(tombstones(&self.server.node.survey().await, now))
            }
            Command::Sync(command) => Ok(sync::run(&self.server.node, command).await),
            Command::Wait { goals, timeout_ms } => Ok(self.wait(goals, timeout_ms).await),
            _ => Ok(answers::unexpected()),
        };
        answered.unwrap_or_else(|failure| answers::failed(&failure))
    }

    async fn control(&self, control: Control) -> Result<ControlReply, Failure> {
        match self.server.node.ask(Request::Control(control)).await {
            Response::Control(reply) => Ok(reply),
            Response::Failed(failure) => Err(failure),
            _ => Ok(ControlReply::Ok),
        }
    }

    /// Looks until nothing is open, or the time is up.
    async fn wait(&self, goals: Goals, timeout_ms: u64) -> Reply {
        let began = Instant::now();
        let deadline = began + Duration::from_millis(timeout_ms.min(WAIT_MS_MAX));
        let waited_ms = || began.elapsed().as_millis() as u64;
        let (node, mut waiting) = (&self.server.node, Waiting::new(goals));
        loop {
            let asked_ms = waited_ms();
            let reports = node.survey().await;
            let open = waiting.open(asked_ms, waited_ms(), &reports);
            if open.is_empty() || Instant::now() >= deadline {
                let row = |open: Open| {
                    Reply::map([("node", Reply::text(open.node)), ("what", Reply::text(open.what))])
                };
                return Reply::Array(open.into_iter().map(row).collect());
            }
            if waiting.tells_to_compare(waited_ms()) {
                node.ask_all(Control::SyncNow).await;
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    async fn explain(&self, name: &[u8]) -> Result<Reply, Failure> {
        if let Err(error) = self.settings.key(name) {
            return Ok(answers::bad_key(&error));
        }
        let (bucket, key) = (self.settings.bucket.clone(), name.to_vec());
        Ok(match self.control(Control::Explain { bucket, key }).await? {
            ControlReply::Explain(explanation) => explain(&explanation),
            _ => answers::unexpected(),
        })
    }

    /// The ring of the connection's bucket.
    fn ring(&self) -> Reply {
        let topology = self.server.node.topology();
        let shares = topology.shares(topology.home(&self.settings.bucket));
        let all: u64 = shares.iter().map(|share| u64::from(share.owned)).sum();
        let members = shares.into_iter().map(|share| {
            let entry = topology.member(share.id);
            let text = |text: Option<&str>| Reply::text(text.unwrap_or_default().to_owned());
            let part = u64::from(share.owned) * 10_000 / all.max(1);
            Reply::map([
                ("node", Reply::text(share.id.to_string())),
                ("name", text(entry.map(MemberEntry::name))),
                ("zone", text(entry.map(MemberEntry::zone))),
                ("share", Reply::Integer(part as i64)),
            ])
        });
        let version = topology.version();
        Reply::map([
            ("partitions", Reply::Integer(i64::from(topology.partitions()))),
            ("epoch", Reply::Integer(version.epoch as i64)),
            ("hash", Reply::text(format!("{:016x}", version.hash))),
            ("members", Reply::Array(members.collect())),
        ])
    }
}

fn explain(explanation: &Explanation) -> Reply {
    let fallbacks = explanation.fallbacks.iter().map(|id| Reply::text(id.to_string()));
    Reply::map([
        ("token", Reply::text(format!("{:016x}", explanation.token))),
        ("partition", Reply::Integer(i64::from(explanation.partition))),
        ("n", Reply::Integer(i64::from(explanation.n))),
        ("replicas", Reply::Array(explanation.replicas.iter().map(replica).collect())),
        ("fallbacks", Reply::Array(fallbacks.collect())),
    ])
}

fn hints(reports: &[MemberReport]) -> Reply {
    let mut rows = Vec::new();
    for MemberReport { id, name, said } in reports {
        let Some(said) = said else { continue };
        rows.extend(said.hints.iter().map(|hint| {
            let eta =
                hint.eta_seconds().map_or(Reply::Null, |seconds| Reply::Integer(seconds as i64));
            Reply::map([
                ("node", Reply::text(id.to_string())),
                ("name", Reply::text(name.clone())),
                ("for", Reply::text(hint.owner.to_string())),
                ("for_name", Reply::text(hint.name.clone())),
                ("keys", Reply::Integer(hint.count as i64)),
                ("bytes", Reply::Integer(hint.bytes as i64)),
                ("oldest_ms", Reply::Integer(hint.oldest_ms as i64)),
                ("rate", Reply::Integer(hint.rate as i64)),
                ("eta_seconds", eta),
                ("marked_partitions", Reply::Integer(hint.dirty_partitions as i64)),
            ])
        }));
    }
    Reply::Array(rows)
}

fn tombstones(reports: &[MemberReport], now: WallMs) -> Reply {
    let row = |(report, said): (&MemberReport, &MemberState)| {
        let held_up = said.reaping.held_up.iter().map(|(by, why, keys)| {
            let known = reports.iter().find(|report| report.id == *by);
            let by_name = known.map_or_else(|| by.short(), |report| report.name.clone());
            Reply::map([
                ("by", Reply::text(by.to_string())),
                ("by_name", Reply::text(by_name)),
                ("why", Reply::text(why.words().to_owned())),
                ("keys", Reply::Integer(*keys as i64)),
            ])
        });
        Reply::map([
            ("node", Reply::text(report.id.to_string())),
            ("name", Reply::text(report.name.clone())),
            ("waiting", Reply::Integer(said.reaping.waiting as i64)),
            ("bytes", Reply::Integer(said.reaping.bytes as i64)),
            ("oldest_ms", Reply::Integer(said.reaping.age_ms(now) as i64)),
            ("held_up", Reply::Array(held_up.collect())),
        ])
    };
    let said = reports.iter().filter_map(|report| Some((report, report.said.as_ref()?)));
    Reply::Array(said.map(row).collect())
}

fn transfers(status: &TransferStatus) -> Reply {
    let id = |id: Option<crate::ids::NodeId>| {
        Reply::text(id.map_or_else(String::new, |id| id.to_string()))
    };
    let incoming = status.incoming.iter().map(|line: &Incoming| {
        Reply::map([
            ("from", id(line.from)),
            ("left", Reply::Integer(line.left.into())),
            ("done", Reply::Integer(line.done.into())),
            ("bytes", Reply::Integer(line.bytes as i64)),
            ("rate", Reply::Integer(line.rate as i64)),
            ("eta_s", Reply::Integer(line.eta_s.map_or(-1, |seconds| seconds as i64))),
            ("held_up", Reply::text(line.held_up.clone())),
        ])
    });
    let outgoing = status.outgoing.iter().map(|(to, slots)| {
        Reply::map([("to", id(Some(*to))), ("slots", Reply::Integer((*slots).into()))])
    });
    Reply::map([
        ("incoming", Reply::Array(incoming.collect())),
        ("outgoing", Reply::Array(outgoing.collect())),
        ("rate_limit", Reply::Integer(status.rate_limit as i64)),
        ("leftovers", Reply::Integer(status.leftovers.into())),
        ("set_aside", Reply::Integer(status.set_aside.into())),
    ])
}

fn replica(view: &ReplicaView) -> Reply {
    Reply::map([
        ("node", Reply::text(view.node.to_string())),
        ("name", Reply::text(view.name.clone())),
        ("state", Reply::text(view.state.clone())),
        ("clock", Reply::text(view.clock.clone())),
        ("siblings", Reply::Integer(i64::from(view.siblings))),
        ("tombstones", Reply::Integer(i64::from(view.tombstones))),
        ("bytes", Reply::Integer(view.bytes as i64)),
        ("digest", Reply::text(format!("{:032x}", view.digest))),
    ])
}

fn nodes(status: &NodeStatus, topology: &Topology) -> Reply {
    let standing = |id| topology.member(id).map_or("", |entry| entry.standing.name()).to_owned();
    let peers = status.peers.iter().map(|peer| {
        Reply::map([
            ("node", Reply::text(peer.id.to_string())),
            ("name", Reply::text(peer.name.clone())),
            ("address", Reply::text(peer.address.clone())),
            ("zone", Reply::text(peer.zone.clone())),
            ("standing", Reply::text(standing(peer.id))),
            ("up", Reply::Integer(i64::from(peer.up))),
            ("share", Reply::Integer(i64::from(peer.share))),
            ("state", Reply::text(peer.liveness.state.clone())),
            ("flaps", Reply::Integer(i64::from(peer.liveness.flaps))),
        ])
    });
    Reply::Array(peers.collect())
}
