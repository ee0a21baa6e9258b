//! Commands that change when a value expires.
//!
//! An expiry is part of the value's version, so a change of it is a write: the value is read, and
//! written again with the context of that read, if the coordinator holds nothing newer by then; else
//! all begins again. A value that somebody has replaced meanwhile is so not brought back.

use std::sync::Arc;

use bytes::Bytes;

use super::answers::{self, Answered, Last};
use super::settings::Settings;
use crate::key::Key;
use crate::resp::command::{Expire, ExpireOnly, Set};
use crate::resp::{Command, Reply};
use crate::server::node::Node;
use crate::time::WallMs;
use crate::wire::messages::{
    Basis, Condition, Done, Expiry, Failure, FailureCode, Got, Request, Response, Value,
};

/// How often a value is read again because somebody has written it in between.
const TRIES: usize = 8;

/// Does one of these commands, on behalf of one connection.
pub(super) struct Expiring {
    pub(super) node: Arc<Node>,
    pub(super) settings: Settings,
}

/// What is to become of a value.
enum Change {
    Nothing,
    Delete,
    Expire(Expiry),
}

/// What became of it.
struct Changed {
    /// The value, if there was one.
    value: Option<Bytes>,
    /// The write, if there was one.
    last: Option<Last>,
}

impl Expiring {
    /// Answers `EXPIRE` and its siblings, `PERSIST`, `GETEX` or `SET … KEEPTTL`.
    pub(super) async fn run(self, command: Command) -> Answered {
        let answered = match command {
            Command::Set(set) => self.set(set).await,
            Command::Expire(expire) => {
                let now = self.node.clock.now().wall;
                let changed =
                    self.change("EXPIRE", &expire.key, |value| expire_as(&expire, value, now));
                changed.await.map(|changed| integer(changed.last))
            }
            Command::Persist { key } => {
                let changed = self.change("PERSIST", &key, |value| match value.expires_at {
                    Some(_) => Change::Expire(Expiry::Never),
                    None => Change::Nothing,
                });
                changed.await.map(|changed| integer(changed.last))
            }
            Command::GetExpire { key, expiry } => {
                let now = self.node.clock.now().wall;
                let changed =
                    self.change("GETEX", &key, |value| match (expiry, value.expires_at) {
                        (Expiry::Never, None) => Change::Nothing,
                        (Expiry::At(at), _) if at <= now => Change::Delete,
                        _ => Change::Expire(expiry),
                    });
                changed.await.map(|Changed { value, last }| Answered {
                    reply: value.map_or(Reply::Null, Reply::Bulk),
                    last,
                })
            }
            _ => Err(answers::unexpected()),
        };
        answered.unwrap_or_else(Answered::from)
    }

    /// Reads a value and writes it again as `decide` says.
    async fn change(
        &self,
        command: &'static str,
        name: &[u8],
        decide: impl Fn(&Value) -> Change,
    ) -> Result<Changed, Reply> {
        let key = self.settings.key(name).map_err(|error| answers::bad_key(&error))?;
        for _ in 0..TRIES {
            let got = self.read(&key).await?;
            let value = match got.values.as_slice() {
                [] => return Ok(Changed { value: None, last: None }),
                [value] => value.clone(),
                values => return Err(siblings(values.len(), got.context)),
            };
            let (data, expiry) = match decide(&value) {
                Change::Nothing => return Ok(Changed { value: Some(value.data), last: None }),
                Change::Delete => (None, Expiry::Bucket),
                Change::Expire(expiry) => (Some(value.data.clone()), expiry),
            };
            let mut put = self.settings.put(key.clone(), self.node.new_write_id(), data);
            put.basis = Basis::Context(got.context);
            (put.condition, put.expiry) = (Condition::Unchanged, expiry);
            match self.node.ask(Request::Put(put)).await {
                Response::Done(Done { context, receipt }) => {
                    let last = Last { command, key, siblings: Some(1), context, receipt };
                    return Ok(Changed { value: Some(value.data), last: Some(last) });
                }
                Response::Failed(Failure { code: FailureCode::Exists, .. }) => {}
                Response::Failed(failure) => return Err(answers::failed(&failure)),
                _ => return Err(answers::unexpected()),
            }
        }
        let message = "others write this key all the time; nothing was changed, try again";
        Err(Reply::error("BUSY", message))
    }

    /// `SET … KEEPTTL`: what the newest value would have had.
    async fn set(&self, set: Set) -> Result<Answered, Reply> {
        let key = self.settings.key(&set.key).map_err(|error| answers::bad_key(&error))?;
        let got = self.read(&key).await?;
        let expiry =
            got.values.first().map(|newest| newest.expires_at.map_or(Expiry::Never, Expiry::At));
        let mut put = self.settings.put(key.clone(), self.node.new_write_id(), Some(set.value));
        (put.condition, put.expiry) = (set.condition, expiry.unwrap_or_default());
        match self.node.ask(Request::Put(put)).await {
            Response::Done(Done { context, receipt }) => {
                let last = Last { command: "SET", key, siblings: None, context, receipt };
                Ok(Answered { reply: Reply::Ok, last: Some(last) })
            }
            Response::Failed(failure) => match failure.code {
                FailureCode::Exists | FailureCode::Absent => Ok(Reply::Null.into()),
                _ => Err(answers::failed(&failure)),
            },
            _ => Err(answers::unexpected()),
        }
    }

    async fn read(&self, key: &Key) -> Result<Got, Reply> {
        match self.node.ask(Request::Get(self.settings.get(key.clone()))).await {
            Response::Got(got) => Ok(got),
            Response::Failed(failure) => Err(answers::failed(&failure)),
            _ => Err(answers::unexpected()),
        }
    }
}

/// What `EXPIRE` makes of a value.
fn expire_as(expire: &Expire, value: &Value, now: WallMs) -> Change {
    let since = if expire.absolute { 0 } else { now.0 };
    let at = WallMs(since.saturating_add_signed(expire.millis));
    let ExpireOnly { without, with, later, earlier } = expire.only;
    // No expiry is later than all others.
    let is_later = value.expires_at.is_some_and(|before| at > before);
    let is_earlier = value.expires_at.is_none_or(|before| at < before);
    let is_meant = (!without || value.expires_at.is_none())
        && (!with || value.expires_at.is_some())
        && (!later || is_later)
        && (!earlier || is_earlier);
    match is_meant {
        false => Change::Nothing,
        true if at <= now => Change::Delete,
        true => Change::Expire(Expiry::At(at)),
    }
}

/// Writing one of several values again would drop the others.
fn siblings(count: usize, context: Bytes) -> Reply {
    let message = format!(
        "the key has {count} siblings, and one expiry would drop all but one of them; read them with RD.GET, \
         merge them, and write with the context of that read"
    );
    let mut failure = Failure::not_applied(FailureCode::Siblings, message);
    failure.context = context;
    answers::failed(&failure)
}

fn integer(last: Option<Last>) -> Answered {
    Answered { reply: Reply::Integer(i64::from(last.is_some())), last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Actor, Dot, Hlc};
    use crate::ids::{Incarnation, WriteId};

    fn value(expires_at: Option<u64>) -> Value {
        let dot = Dot { actor: Actor { incarnation: Incarnation(1), k: 1 }, counter: 1 };
        let expires_at = expires_at.map(WallMs);
        let data = Bytes::from_static(b"v");
        Value { dot, write_id: WriteId(1), hlc: Hlc(1), expires_at, data }
    }

    /// `-` nothing, `D` deleted, or the time.
    fn made(millis: i64, absolute: bool, only: ExpireOnly, before: Option<u64>) -> String {
        let expire = Expire { key: Bytes::new(), millis, absolute, only };
        match expire_as(&expire, &value(before), WallMs(1000)) {
            Change::Nothing => "-".to_owned(),
            Change::Delete => "D".to_owned(),
            Change::Expire(Expiry::At(at)) => at.0.to_string(),
            Change::Expire(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn an_expiry_is_changed_under_the_conditions_of_redis() {
        let none = ExpireOnly::default();
        assert_eq!(made(5, false, none, None), "1005");
        assert_eq!(made(5, true, none, None), "D");
        assert_eq!(
            (made(0, false, none, Some(2000)), made(-9, false, none, None)),
            ("D".into(), "D".into())
        );
        let (nx, xx) = (ExpireOnly { without: true, ..none }, ExpireOnly { with: true, ..none });
        assert_eq!(
            (made(5, false, nx, None), made(5, false, nx, Some(9000))),
            ("1005".into(), "-".into())
        );
        assert_eq!(
            (made(5, false, xx, None), made(5, false, xx, Some(9000))),
            ("-".into(), "1005".into())
        );
        let (gt, lt) = (ExpireOnly { later: true, ..none }, ExpireOnly { earlier: true, ..none });
        let of = |only| {
            [None, Some(1004), Some(1005), Some(1006)].map(|before| made(5, false, only, before))
        };
        assert_eq!(of(gt), ["-", "1005", "-", "-"]);
        assert_eq!(of(lt), ["1005", "-", "-", "1005"]);
        assert_eq!(made(-5, false, gt, Some(1006)), "-", "what is not meant is not deleted");
    }
}
