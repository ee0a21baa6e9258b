//! Commands under way, in the order in which their answers leave, and the keys they use.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::answers::Answered;
use super::asks::{self, Answer};
use super::keyed::Question;
use crate::resp::Command;

/// What a command uses, as far as the order of commands depends on it.
///
/// Keys are told apart by a hash: two that share one only wait for each other without need. A
/// connection stays in one bucket while anything is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// Nothing that another command could change.
    Nothing,
    /// Reads, or writes, one key.
    Key(u64, Access),
    /// Reads, or writes, each of these.
    Keys(Vec<u64>, Access),
    /// The connection itself, or all keys: begins when everything before it is answered.
    Everything,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Uses {
    /// What `command` uses.
    pub(super) fn of(command: &Command) -> Self {
        let one = |key: &Bytes, access| Self::Key(xxh3_64(key), access);
        let all = |keys: &[Bytes], access| {
            Self::Keys(keys.iter().map(|key| xxh3_64(key)).collect(), access)
        };
        match command {
            Command::Ping(_) | Command::Echo(_) => Self::Nothing,
            Command::Get { key }
            | Command::StringLength { key }
            | Command::Type { key }
            | Command::TimeToLive { key, .. }
            | Command::RdGet { key, .. }
            | Command::Siblings { key }
            | Command::Explain { key } => one(key, Access::Read),
            Command::GetDelete { key }
            | Command::GetExpire { key, .. }
            | Command::Persist { key } => one(key, Access::Write),
            Command::Expire(expire) => one(&expire.key, Access::Write),
            Command::Set(set) => one(&set.key, Access::Write),
            Command::RdPut(put) => one(&put.key, Access::Write),
            Command::RdDelete(delete) => one(&delete.key, Access::Write),
            Command::Trace(traced) => Self::of(traced),
            Command::Exists(keys) | Command::MultiGet(keys) => all(keys, Access::Read),
            Command::Delete(keys) => all(keys, Access::Write),
            Command::MultiSet(pairs) => {
                let keys = pairs.iter().map(|(key, _)| xxh3_64(key));
                Self::Keys(keys.collect(), Access::Write)
            }
            _ => Self::Everything,
        }
    }

    /// Whether it writes keys.
    pub(super) fn writes(&self) -> bool {
        self.keys().1 == Access::Write
    }

    fn keys(&self) -> (&[u64], Access) {
        match self {
            Self::Nothing | Self::Everything => (&[], Access::Read),
            Self::Key(key, access) => (std::slice::from_ref(key), *access),
            Self::Keys(keys, access) => (keys, *access),
        }
    }
}

/// What is left to do for a command.
pub(super) enum Work {
    /// Nothing.
    Answered(Answered),
    /// One request is under way.
    Asked(Answer, Question),
    /// More than that. Goes on when all before it is answered.
    Running(Pin<Box<dyn Future<Output = Answered> + Send>>),
}

impl Work {
    pub(super) fn running(work: impl Future<Output = Answered> + Send + 'static) -> Self {
        Self::Running(Box::pin(work))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Answered> {
        match self {
            Self::Answered(answered) => {
                // Polled once more it would be empty; the queue drops it now.
                Poll::Ready(std::mem::replace(answered, crate::resp::Reply::Null.into()))
            }
            Self::Asked(answer, question) => {
                let response = asks::response(ready!(Pin::new(answer).poll(context)));
                Poll::Ready(question.answer(response))
            }
            Self::Running(work) => work.as_mut().poll(context),
        }
    }
}

/// Users of one key among the commands under way.
#[derive(Clone, Copy, Debug, Default)]
struct Users {
    readers: usize,
    writers: usize,
}

impl Users {
    fn of(&mut self, access: Access) -> &mut usize {
        match access {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }
}

/// The commands of one connection that are under way.
#[derive(Default)]
pub(super) struct Queue {
    commands: VecDeque<(Uses, Work)>,
    users: HashMap<u64, Users>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether a command that uses this can begin now.
    pub(super) fn admits(&self, uses: &Uses) -> bool {
        if self.commands.is_empty() {
            return true;
        }
        let (keys, access) = uses.keys();
        let is_free = |users: &Users| match access {
            Access::Read => users.writers == 0,
            Access::Write => false,
        };
        *uses != Uses::Everything && keys.iter().all(|key| self.users.get(key).is_none_or(is_free))
    }

    /// Adds a command that has begun.
    pub(super) fn push(&mut self, uses: Uses, work: Work) {
        let (keys, access) = uses.keys();
        for key in keys {
            *self.users.entry(*key).or_default().of(access) += 1;
        }
        self.commands.push_back((uses, work));
    }

    /// The answer to the first command, once it is there. Never ready while there is no command.
    pub(super) fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Answered> {
        let Some((_, work)) = self.commands.front_mut() else { return Poll::Pending };
        let answered = ready!(work.poll(context));
        if let Some((uses, _)) = self.commands.pop_front() {
            self.release(&uses);
        }
        Poll::Ready(answered)
    }

    /// The answer to the first command, if it is there.
    pub(super) fn take_first(&mut self) -> Option<Answered> {
        // Whoever finds nothing here waits with `poll_first` and a waker of its own.
        match self.poll_first(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => None,
        }
    }

    fn release(&mut self, uses: &Uses) {
        let (keys, access) = uses.keys();
        for key in keys {
            if let Some(users) = self.users.get_mut(key) {
                *users.of(access) -= 1;
                if users.readers + users.writers == 0 {
                    self.users.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Reply;

    fn uses(words: &[&str]) -> Uses {
        let arguments: Vec<Bytes> =
            words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        Uses::of(&Command::parse(&arguments).unwrap())
    }

    fn queue(commands: &[&[&str]]) -> Queue {
        let mut queue = Queue::default();
        for words in commands {
            queue.push(uses(words), Work::Answered(Reply::Ok.into()));
        }
        queue
    }

    #[test]
    fn a_command_waits_for_a_write_of_its_key_and_a_write_for_everything_on_it() {
        let reading = queue(&[&["GET", "k"]]);
        assert!(reading.admits(&uses(&["GET", "k"])));
        assert!(reading.admits(&uses(&["SET", "other", "v"])));
        for write in [&["SET", "k", "v"][..], &["DEL", "k"], &["MSET", "a", "1", "k", "2"]] {
            assert!(!reading.admits(&uses(write)), "{write:?}");
        }
        let writing = queue(&[&["RD.TRACE", "SET", "k", "v"]]);
        for read in [&["GET", "k"][..], &["MGET", "a", "k"], &["RD.EXPLAIN", "k"]] {
            assert!(!writing.admits(&uses(read)), "{read:?}");
        }
        assert!(writing.admits(&uses(&["PING"])));
    }

    #[test]
    fn what_concerns_the_connection_or_all_keys_waits_for_everything_and_is_first_in_an_empty_queue()
     {
        let mut queue = queue(&[&["PING"]]);
        for command in [&["HELLO", "3"][..], &["RD.BUCKET", "b"], &["SCAN", "0"], &["RD.LAST"]] {
            assert!(!queue.admits(&uses(command)), "{command:?}");
        }
        assert!(queue.take_first().is_some());
        assert!(queue.admits(&uses(&["HELLO", "3"])));
    }

    #[test]
    fn answered_commands_let_go_of_their_keys_one_by_one() {
        let mut queue = queue(&[&["GET", "k"], &["MGET", "k", "k"]]);
        assert!(queue.take_first().is_some());
        assert!(!queue.admits(&uses(&["SET", "k", "v"])));
        assert!(queue.take_first().is_some());
        assert!(queue.take_first().is_none());
        assert!(queue.admits(&uses(&["SET", "k", "v"])) && queue.users.is_empty());
    }
}
