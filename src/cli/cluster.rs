//! The cluster as the commands reach it: by the client's routing, or one node and no other.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::Bytes;

use super::args::Cluster;
use super::exit::{Exit, Failure, repeat_hint};
use crate::client::direct::Direct;
use crate::client::{Client, Context, Hop, Level, Outcome, Receipt, Value, Values, WriteId};
use crate::ids::NodeId;
use crate::key::Key;
use crate::membership::{MemberEntry, Topology};
use crate::wire::messages::{self, Basis, Condition, Expiry, Request, Response};

/// A read.
pub(super) struct Question {
    pub(super) key: Key,
    pub(super) r: Level,
    pub(super) pr: Level,
    pub(super) strict: bool,
    pub(super) trace: bool,
}

/// What a read found.
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    pub(super) deleted: bool,
    pub(super) context: Context,
    pub(super) receipt: Receipt,
    pub(super) trace: Vec<Hop>,
}

/// A write, or, without a value, a deletion.
pub(super) struct Order {
    pub(super) key: Key,
    pub(super) value: Option<Bytes>,
    pub(super) replaces: Replaces,
    pub(super) ttl: Option<Duration>,
    pub(super) w: Level,
    pub(super) pw: Level,
    pub(super) strict: bool,
    /// The write to carry on, whose outcome was unknown.
    pub(super) repeats: Option<WriteId>,
}

/// What a write replaces.
pub(super) enum Replaces {
    /// What a read or write has seen.
    Seen(Context),
    /// What the coordinator sees.
    Observed,
    /// Nothing; and if something is there, there is to be no write.
    New,
    /// Nothing: it stands beside what is there.
    Nothing,
}

/// A write was acknowledged.
pub(super) struct Written {
    pub(super) context: Context,
    pub(super) receipt: Receipt,
    pub(super) write_id: WriteId,
}

/// A way to the data.
pub(super) enum Door {
    /// To a replica of the key, and to the next one if that fails.
    Routed(Client),
    /// To this node, once.
    Direct(Direct, Duration),
}

/// A client of the cluster.
pub(super) async fn connect(cluster: &Cluster) -> Result<Client, Failure> {
    // Half of the time for one node, so that there is some left when it is silent.
    let attempt = cluster.timeout / 2;
    let builder = Client::builder().seeds(cluster.addr.iter());
    let builder = builder.connect_timeout(attempt).attempt_timeout(attempt);
    Ok(builder.operation_timeout(cluster.timeout).connect().await?)
}

impl Door {
    pub(super) async fn open(cluster: &Cluster, direct: bool) -> Result<Self, Failure> {
        if !direct {
            return Ok(Self::Routed(connect(cluster).await?));
        }
        let [address] = &cluster.addr[..] else {
            return Err(Failure::usage("--direct asks one node: give one --addr"));
        };
        let node = Direct::connect(address, cluster.timeout).await.map_err(|error| {
            let mut failure = Failure::from(error);
            // Also when the time was up: where a node should be, nobody speaks.
            failure.exit = Exit::Unreachable;
            failure
        })?;
        Ok(Self::Direct(node, cluster.timeout))
    }

    pub(super) async fn read(&self, question: Question) -> Result<Found, Failure> {
        let Question { key, r, pr, strict, trace } = question;
        match self {
            Self::Routed(client) => {
                let get = client.bucket(key.bucket())?.get(key.name()).r(r).pr(pr);
                let get = if strict { get.strict() } else { get };
                let read = if trace { get.trace() } else { get }.await?;
                Ok(Found {
                    deleted: read.values == Values::Tombstone,
                    values: read.values.as_slice().to_vec(),
                    context: read.context,
                    receipt: read.receipt,
                    trace: read.trace,
                })
            }
            Self::Direct(node, timeout) => {
                let budget_ms = share_of(*timeout);
                let get = Request::Get(messages::Get { key, r, pr, budget_ms, strict, trace });
                let Response::Got(got) = node.request(&get, *timeout).await? else {
                    return Err(strange_answer());
                };
                let messages::Got { context, values, deleted, receipt, trace } = got;
                Ok(Found { values, deleted, context: context_of(&context)?, receipt, trace })
            }
        }
    }

    pub(super) async fn write(&self, order: Order) -> Result<Written, Failure> {
        match self {
            Self::Routed(client) => write_routed(client, order).await,
            Self::Direct(node, timeout) => write_direct(node, *timeout, order).await,
        }
    }
}

async fn write_routed(client: &Client, order: Order) -> Result<Written, Failure> {
    let Order { key, value, replaces, ttl, w, pw, strict, repeats } = order;
    let bucket = client.bucket(key.bucket())?;
    let write = match (value, replaces) {
        (Some(value), Replaces::Seen(seen)) => bucket.put(key.name(), value).context(&seen),
        (Some(value), Replaces::Observed) => bucket.put(key.name(), value).observed(),
        (Some(value), Replaces::New) => bucket.put(key.name(), value).create_only(),
        (Some(value), Replaces::Nothing) => bucket.put(key.name(), value).blind(),
        (None, Replaces::Seen(seen)) => bucket.delete(key.name()).context(&seen),
        (None, _) => bucket.delete(key.name()).observed(),
    };
    let mut write = write.w(w).pw(pw);
    if strict {
        write = write.strict();
    }
    if let Some(ttl) = ttl {
        write = write.ttl(ttl);
    }
    if let Some(id) = repeats {
        write = write.write_id(id);
    }
    let written = write.await?;
    let (context, receipt, write_id) = (written.context, written.receipt, written.write_id);
    Ok(Written { context, receipt, write_id })
}

async fn write_direct(node: &Direct, timeout: Duration, order: Order) -> Result<Written, Failure> {
    let write_id = order.repeats.unwrap_or_else(fresh_write_id);
    let (basis, condition) = match order.replaces {
        Replaces::Seen(seen) => {
            (Basis::Context(Bytes::copy_from_slice(seen.as_bytes())), Condition::None)
        }
        Replaces::Observed => (Basis::Observed, Condition::None),
        Replaces::New => (Basis::Observed, Condition::Absent),
        Replaces::Nothing => (Basis::Blind, Condition::None),
    };
    let put = Request::Put(messages::Put {
        key: order.key,
        write_id,
        attempt: u8::from(order.repeats.is_some()),
        basis,
        condition,
        value: order.value,
        expiry: order.ttl.map_or(Expiry::Bucket, |ttl| {
            Expiry::After(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
        }),
        w: order.w,
        pw: order.pw,
        strict: order.strict,
        budget_ms: share_of(timeout),
    });
    match node.request(&put, timeout).await {
        Ok(Response::Done(done)) => {
            let context = context_of(&done.context)?;
            Ok(Written { context, receipt: done.receipt, write_id })
        }
        Ok(_) => Err(strange_answer()),
        Err(error) => {
            let unknown = error.outcome() == Outcome::Unknown || order.repeats.is_some();
            let mut failure = Failure::from(error);
            failure.write_id = Some(write_id);
            // A refusal now says nothing of the attempt before it.
            if unknown {
                failure.exit = Exit::Unknown;
                failure.hint = Some(repeat_hint(write_id));
            }
            Err(failure)
        }
    }
}

/// The node's part of the time, so that its own answer arrives before this side gives up.
fn share_of(timeout: Duration) -> u32 {
    u32::try_from((timeout * 7 / 8).as_millis()).unwrap_or(u32::MAX).max(1)
}

fn context_of(token: &[u8]) -> Result<Context, Failure> {
    Ok(String::from_utf8_lossy(token).parse::<Context>()?)
}

fn strange_answer() -> Failure {
    Failure::new(Exit::Unreachable, "protocol", "the node answered another question")
        .hint("are this program and the node of versions that go together?")
}

/// 128 bits that stem from the operating system: the standard library draws the key of its
/// hashers from there, and no two hashers of a process have the same.
fn fresh_write_id() -> WriteId {
    let draw = || u128::from(RandomState::new().hash_one(std::process::id()));
    WriteId((draw() << 64) | draw())
}

/// Puts one question to every member at the same time. The answers come in order of name.
pub(super) async fn ask_all<T, F>(
    topology: &Topology,
    ask: impl Fn(String) -> F,
) -> Vec<(NodeId, MemberEntry, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut members: Vec<(NodeId, MemberEntry)> =
        topology.state().present().map(|(id, entry)| (id, entry.clone())).collect();
    members.sort_by(|(id, entry), (other_id, other)| {
        (entry.name(), id).cmp(&(other.name(), other_id))
    });
    let asked: Vec<_> =
        members.iter().map(|(_, entry)| tokio::spawn(ask(entry.address().to_owned()))).collect();
    let mut answers = Vec::with_capacity(members.len());
    for ((id, entry), answer) in members.into_iter().zip(asked) {
        answers.push((id, entry, answer.await.expect("asking does not panic")));
    }
    answers
}

/// What people call a member.
pub(super) fn name_of(topology: &Topology, id: NodeId) -> String {
    topology.member(id).map_or_else(|| id.short(), |member| member.name().to_owned())
}
