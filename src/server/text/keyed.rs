//! Commands that are one request about one key.

use bytes::Bytes;

use super::answers::{self, Answered, Last};
use super::settings::Settings;
use crate::key::{Key, KeyError};
use crate::resp::command::{DeleteBasis, PutBasis, RdDelete, RdPut, Set};
use crate::resp::{Command, Reply};
use crate::server::clock::Clock;
use crate::server::node::Node;
use crate::wire::messages::{
    Basis, Condition, Done, FailureCode, Got, Hop, Level, Put, Request, Response, Value,
};

/// What is to be answered when the response comes.
#[derive(Debug)]
pub(super) struct Question {
    /// The command, as `RD.LAST` names it.
    command: &'static str,
    key: Key,
    form: Form,
    /// Show the hops too.
    traced: bool,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// The newest value.
    Value,
    /// Its bytes.
    Length,
    /// `string` or `none`.
    Type,
    /// When it expires, or the time until then by the clock when the answer comes.
    TimeToLive { milliseconds: bool, absolute: bool, clock: Clock },
    /// 1 or 0.
    Exists,
    /// Context, values, receipt.
    Versions,
    /// Each value with its origin.
    Siblings,
    /// `OK`, or null where the condition did not hold.
    Written,
    /// 1, or 0 where nothing was to be deleted.
    Deleted,
    /// Context and receipt.
    Achieved,
}

type Asked = Result<(Request, Question), KeyError>;

/// The request of a command that is one request about one key, and the question that its response
/// answers. `None` for any other command.
pub(super) fn request(node: &Node, settings: &Settings, command: &Command) -> Option<Asked> {
    let asked = match command {
        Command::Get { key } => read(settings, "GET", key, Form::Value),
        Command::StringLength { key } => read(settings, "STRLEN", key, Form::Length),
        Command::Type { key } => read(settings, "TYPE", key, Form::Type),
        Command::TimeToLive { key, milliseconds, absolute } => {
            let (milliseconds, absolute, clock) = (*milliseconds, *absolute, node.clock);
            read(settings, "TTL", key, Form::TimeToLive { milliseconds, absolute, clock })
        }
        Command::Siblings { key } => read(settings, "RD.SIBLINGS", key, Form::Siblings),
        Command::RdGet { key, r, pr } => read_at(settings, key, *r, *pr),
        Command::Exists(keys) => match keys.as_slice() {
            [key] => read(settings, "EXISTS", key, Form::Exists),
            _ => return None,
        },
        Command::Delete(keys) => match keys.as_slice() {
            [key] => delete(node, settings, key),
            _ => return None,
        },
        Command::Set(set) if set.keeps_expiry => return None,
        Command::Set(set) => self::set(node, settings, set),
        Command::RdPut(put) => rd_put(node, settings, put),
        Command::RdDelete(delete) => rd_delete(node, settings, delete),
        Command::Trace(traced) => {
            let asked = request(node, settings, traced)?;
            asked.map(|(request, question)| (with_hops(request), question.traced()))
        }
        _ => return None,
    };
    Some(asked)
}

fn read(settings: &Settings, command: &'static str, key: &Bytes, form: Form) -> Asked {
    let key = settings.key(key)?;
    let question = Question { command, key: key.clone(), form, traced: false };
    Ok((Request::Get(settings.get(key)), question))
}

fn read_at(settings: &Settings, key: &Bytes, r: Option<Level>, pr: Option<Level>) -> Asked {
    let key = settings.key(key)?;
    let mut get = settings.get(key.clone());
    (get.r, get.pr) = (r.unwrap_or(get.r), pr.unwrap_or(get.pr));
    let question = Question { command: "RD.GET", key, form: Form::Versions, traced: false };
    Ok((Request::Get(get), question))
}

fn set(node: &Node, settings: &Settings, set: &Set) -> Asked {
    let key = settings.key(&set.key)?;
    let mut put = settings.put(key, node.new_write_id(), Some(set.value.clone()));
    (put.expiry, put.condition) = (set.expiry, set.condition);
    Ok(write("SET", put, Form::Written))
}

fn delete(node: &Node, settings: &Settings, key: &Bytes) -> Asked {
    let mut put = settings.put(settings.key(key)?, node.new_write_id(), None);
    put.condition = Condition::Present;
    Ok(write("DEL", put, Form::Deleted))
}

fn rd_put(node: &Node, settings: &Settings, rd_put: &RdPut) -> Asked {
    let key = settings.key(&rd_put.key)?;
    let mut put = settings.put(key, node.new_write_id(), Some(rd_put.value.clone()));
    (put.basis, put.condition) = match &rd_put.basis {
        PutBasis::Context(context) => (Basis::Context(context.clone()), Condition::None),
        PutBasis::New => (Basis::Observed, Condition::Absent),
        PutBasis::Blind => (Basis::Blind, Condition::None),
    };
    (put.w, put.pw) = (rd_put.w.unwrap_or(put.w), rd_put.pw.unwrap_or(put.pw));
    put.expiry = rd_put.expiry;
    Ok(write("RD.PUT", put, Form::Achieved))
}

fn rd_delete(node: &Node, settings: &Settings, delete: &RdDelete) -> Asked {
    let mut put = settings.put(settings.key(&delete.key)?, node.new_write_id(), None);
    put.basis = match &delete.basis {
        DeleteBasis::Context(context) => Basis::Context(context.clone()),
        DeleteBasis::Blind => Basis::Blind,
    };
    (put.w, put.pw) = (delete.w.unwrap_or(put.w), delete.pw.unwrap_or(put.pw));
    Ok(write("RD.DEL", put, Form::Achieved))
}

fn write(command: &'static str, put: Put, form: Form) -> (Request, Question) {
    let question = Question { command, key: put.key.clone(), form, traced: false };
    (Request::Put(put), question)
}

/// Reads can tell their hops; writes tell what they achieved.
fn with_hops(mut request: Request) -> Request {
    if let Request::Get(get) = &mut request {
        get.trace = true;
    }
    request
}

impl Question {
    fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// The answer that `response` makes.
    pub(super) fn answer(&self, response: Response) -> Answered {
        let (mut answered, hops) = match response {
            Response::Got(mut got) => {
                let hops = std::mem::take(&mut got.trace);
                (self.read(got), hops)
            }
            Response::Done(done) => {
                let hops = if self.traced { vec![hop(&done)] } else { Vec::new() };
                (self.written(done), hops)
            }
            Response::Failed(failure) => {
                let reply = match (self.form, failure.code) {
                    (Form::Written, FailureCode::Exists | FailureCode::Absent) => Reply::Null,
                    (Form::Deleted, FailureCode::Absent) => Reply::Integer(0),
                    _ => return answers::failed(&failure).into(),
                };
                (reply.into(), Vec::new())
            }
            _ => return answers::unexpected().into(),
        };
        if self.traced {
            let hops = Reply::Array(hops.into_iter().map(answers::hop).collect());
            answered.reply = Reply::Array(vec![answered.reply, hops]);
        }
        answered
    }

    fn read(&self, got: Got) -> Answered {
        let Got { context, values, receipt, .. } = got;
        let last = self.last(Some(values.len()), context.clone(), receipt);
        let newest = values.first();
        let reply = match self.form {
            Form::Value => values.into_iter().next().map_or(Reply::Null, |v| Reply::Bulk(v.data)),
            Form::Length => Reply::Integer(newest.map_or(0, |value| value.data.len() as i64)),
            Form::Type => Reply::status(if newest.is_some() { "string" } else { "none" }),
            Form::TimeToLive { milliseconds, absolute, clock } => {
                let since = if absolute { 0 } else { clock.now().wall.0 };
                Reply::Integer(time_to_live(newest, milliseconds, since))
            }
            Form::Exists => Reply::Integer(i64::from(newest.is_some())),
            Form::Siblings => Reply::Array(values.into_iter().map(answers::sibling).collect()),
            Form::Versions => {
                let values = values.into_iter().map(|value| Reply::Bulk(value.data)).collect();
                let receipt = answers::receipt(&receipt);
                Reply::Array(vec![Reply::Bulk(context), Reply::Array(values), receipt])
            }
            Form::Written | Form::Deleted | Form::Achieved => answers::unexpected(),
        };
        Answered { reply, last: Some(last) }
    }

    fn written(&self, done: Done) -> Answered {
        let Done { context, receipt } = done;
        let reply = match self.form {
            Form::Written => Reply::Ok,
            Form::Deleted => Reply::Integer(1),
            Form::Achieved => {
                Reply::Array(vec![Reply::Bulk(context.clone()), answers::receipt(&receipt)])
            }
            _ => answers::unexpected(),
        };
        Answered { reply, last: Some(self.last(None, context, receipt)) }
    }

    fn last(
        &self,
        siblings: Option<usize>,
        context: Bytes,
        receipt: crate::wire::messages::Receipt,
    ) -> Last {
        Last { command: self.command, key: self.key.clone(), siblings, context, receipt }
    }
}

/// What a write has to tell of its way.
fn hop(done: &Done) -> Hop {
    let receipt = &done.receipt;
    let what = format!(
        "acknowledged: {} of {} replicas have it, {} synced it to disk, {} were needed",
        receipt.acks, receipt.n, receipt.fsynced, receipt.needed
    );
    Hop { node: receipt.coordinator, micros: receipt.micros, what }
}

/// -2 for no value, -1 for one that does not expire. Redis rounds seconds to the nearest.
fn time_to_live(newest: Option<&Value>, milliseconds: bool, since: u64) -> i64 {
    let Some(value) = newest else { return -2 };
    let Some(expires_at) = value.expires_at else { return -1 };
    let left = expires_at.0.saturating_sub(since);
    let left = if milliseconds { left } else { left.saturating_add(500) / 1000 };
    i64::try_from(left).unwrap_or(i64::MAX)
}
