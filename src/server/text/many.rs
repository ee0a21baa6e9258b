//! Commands that are several requests: about several keys, each by itself, or one after another.
//!
//! Requests about several keys are under way together, but never more than a window of them: one
//! command must not fill the node's queues.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::answers::{self, Answered, Last};
use super::asks::{self, Asks};
use super::settings::Settings;
use crate::key::{Key, KeyError};
use crate::limits;
use crate::resp::{Command, Reply};
use crate::server::node::Node;
use crate::wire::messages::{Basis, Condition, Failure, FailureCode, Got, Request, Response};

/// Requests of one command that are under way together.
const WINDOW: usize = 128;
/// Bytes of values that one `MGET` may answer. As much as a frame holds: the values are in memory
/// together until the last of them has been read.
const VALUES_BYTES: usize = limits::FRAME_PAYLOAD_BYTES;

/// Does one of these commands, on behalf of one connection.
pub(super) struct Several {
    pub(super) node: Arc<Node>,
    pub(super) settings: Settings,
}

impl Several {
    /// Answers `MGET`, `MSET`, `DEL`, `EXISTS` of several keys, or `GETDEL`.
    pub(super) async fn run(self, command: Command) -> Answered {
        let answered = match command {
            Command::GetDelete { key } => return self.get_delete(&key).await,
            Command::MultiGet(names) => self.multi_get(&names).await,
            Command::MultiSet(pairs) => self.multi_set(pairs).await,
            Command::Exists(names) => self.exists(&names).await,
            Command::Delete(names) => self.delete(&names).await,
            _ => Err(answers::unexpected()),
        };
        answered.unwrap_or_else(|error| error).into()
    }

    /// Asks for all of `requests` and hands each response to `take`, in order. Ends at the first
    /// that `take` refuses; what is under way by then is not undone.
    async fn each(
        &self,
        requests: Vec<Request>,
        mut take: impl FnMut(Response) -> Result<(), Reply>,
    ) -> Result<(), Reply> {
        let mut requests = requests.into_iter();
        while requests.len() > 0 {
            let mut asks = Asks::new(&self.node);
            let window = requests.by_ref().take(WINDOW);
            let under_way: Vec<_> = window.map(|request| asks.ask(&self.node, request)).collect();
            asks.offer(&self.node);
            // All of a window are waited for, so that none is still at work behind the answer.
            let mut refused = None;
            for answer in under_way {
                let response = asks::response(answer.await);
                if refused.is_none() {
                    refused = take(response).err();
                }
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
        }
        Ok(())
    }

    fn reads(&self, names: &[Bytes]) -> Result<Vec<Request>, Reply> {
        let read = |name: &Bytes| Ok(Request::Get(self.settings.get(self.settings.key(name)?)));
        let reads: Result<_, KeyError> = names.iter().map(read).collect();
        reads.map_err(|error| answers::bad_key(&error))
    }

    async fn multi_get(&self, names: &[Bytes]) -> Result<Reply, Reply> {
        let (mut values, mut bytes) = (Vec::with_capacity(names.len()), 0);
        let take = |response| {
            let newest = read(response)?.values.into_iter().next();
            bytes += newest.as_ref().map_or(0, |value| value.data.len());
            values.push(newest.map_or(Reply::Null, |value| Reply::Bulk(value.data)));
            if bytes > VALUES_BYTES {
                let message =
                    format!("the values are more than {VALUES_BYTES} bytes: ask for fewer keys");
                return Err(Reply::error("TOOLARGE", message));
            }
            Ok(())
        };
        self.each(self.reads(names)?, take).await?;
        Ok(Reply::Array(values))
    }

    async fn exists(&self, names: &[Bytes]) -> Result<Reply, Reply> {
        let mut count = 0;
        let take = |response| {
            count += i64::from(!read(response)?.values.is_empty());
            Ok(())
        };
        self.each(self.reads(names)?, take).await?;
        Ok(Reply::Integer(count))
    }

    async fn multi_set(&self, pairs: Vec<(Bytes, Bytes)>) -> Result<Reply, Reply> {
        // Of a key that is named twice the last value counts, as if they were written in turn.
        let mut last = BTreeMap::<Key, Bytes>::new();
        for (name, value) in pairs {
            let key = self.settings.key(&name).map_err(|error| answers::bad_key(&error))?;
            last.insert(key, value);
        }
        let write = |(key, value)| {
            Request::Put(self.settings.put(key, self.node.new_write_id(), Some(value)))
        };
        let take = |response| match response {
            Response::Done(_) => Ok(()),
            response => Err(other(response)),
        };
        self.each(last.into_iter().map(write).collect(), take).await?;
        Ok(Reply::Ok)
    }

    async fn delete(&self, names: &[Bytes]) -> Result<Reply, Reply> {
        let keys: Result<Vec<Key>, KeyError> =
            names.iter().map(|name| self.settings.key(name)).collect();
        let mut keys = keys.map_err(|error| answers::bad_key(&error))?;
        // A key that is named twice has a value once.
        keys.sort_unstable();
        keys.dedup();
        let delete = |key| {
            let mut put = self.settings.put(key, self.node.new_write_id(), None);
            put.condition = Condition::Present;
            Request::Put(put)
        };
        let mut count = 0;
        let take = |response| match response {
            Response::Done(_) => {
                count += 1;
                Ok(())
            }
            Response::Failed(Failure { code: FailureCode::Absent, .. }) => Ok(()),
            response => Err(other(response)),
        };
        self.each(keys.into_iter().map(delete).collect(), take).await?;
        Ok(Reply::Integer(count))
    }

    /// Reads, then deletes exactly what was read.
    async fn get_delete(&self, name: &[u8]) -> Answered {
        let key = match self.settings.key(name) {
            Ok(key) => key,
            Err(error) => return answers::bad_key(&error).into(),
        };
        let got = match read(self.node.ask(Request::Get(self.settings.get(key.clone()))).await) {
            Ok(got) => got,
            Err(error) => return error.into(),
        };
        let siblings = Some(got.values.len());
        let Some(newest) = got.values.into_iter().next() else { return Reply::Null.into() };
        let mut put = self.settings.put(key.clone(), self.node.new_write_id(), None);
        put.basis = Basis::Context(got.context);
        match self.node.ask(Request::Put(put)).await {
            Response::Done(done) => {
                let (context, receipt) = (done.context, done.receipt);
                let last = Last { command: "GETDEL", key, siblings, context, receipt };
                Answered { reply: Reply::Bulk(newest.data), last: Some(last) }
            }
            response => other(response).into(),
        }
    }
}

fn read(response: Response) -> Result<Got, Reply> {
    match response {
        Response::Got(got) => Ok(got),
        response => Err(other(response)),
    }
}

fn other(response: Response) -> Reply {
    match response {
        Response::Failed(failure) => answers::failed(&failure),
        _ => answers::unexpected(),
    }
}
