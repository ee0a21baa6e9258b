//! A bucket: where keys live, and where every read and write begins.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Change, Delete, Get, Inner, Keys, MultiGet, MultiPut, Put, Update, Values, Write};
use crate::key::{Key, KeyError};
use crate::wire::messages::Which;

/// A bucket of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    name: Arc<str>,
}

impl Bucket {
    pub(super) fn new(inner: Arc<Inner>, name: &str) -> Self {
        Self { inner, name: name.into() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a key: `bucket.get("alice").await?`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(self.inner.clone(), self.key(key.as_ref()))
    }

    /// Writes a key. Say what the write builds on before you await it:
    ///
    /// ```no_run
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// let read = carts.get("alice").await?;
    /// carts.put("alice", "apples").context(&read.context).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Without that it does not compile:
    ///
    /// ```compile_fail,E0277
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// carts.put("alice", "apples").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put {
        Put::new(self.inner.clone(), self.key(key.as_ref()), value.into())
    }

    /// Deletes a key. As with [`Bucket::put`], say what the deletion builds on:
    ///
    /// ```no_run
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// carts.delete("alice").observed().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0277
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// carts.delete("alice").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        Delete::new(self.inner.clone(), self.key(key.as_ref()))
    }

    /// Reads a key, gives what is there to `change`, and writes what that makes of it, with the
    /// context of the read: siblings are resolved by the write.
    ///
    /// `change` must expect any number of values, and must not do anything else but compute: a
    /// write that was refused (a lost race) is repeated from the read on. See [`Update`].
    ///
    /// ```no_run
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// use ringdove::client::{Union, Values};
    ///
    /// // Each line an item; items that two writers added at the same time are all kept.
    /// carts
    ///     .update("alice", |cart: &Values| {
    ///         let items = cart.resolve(&Union::of_lines()).unwrap_or_default();
    ///         [&items[..], b"pears\n"].concat()
    ///     })
    ///     .attempts(5)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update<F, C>(&self, key: impl AsRef<[u8]>, change: F) -> Update<F>
    where
        F: FnMut(&Values) -> C,
        C: Into<Change>,
    {
        Update::new(self.clone(), key.as_ref(), change)
    }

    /// Reads many keys, some of them at a time; each has an answer of its own.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> MultiGet {
        MultiGet::new(
            self.clone(),
            keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())),
        )
    }

    /// Carries out many writes, some of them at a time; each has an answer of its own. There is
    /// no order between them, and no "all or nothing".
    ///
    /// ```no_run
    /// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
    /// let writes = ["ann", "bob"].map(|key| carts.put(key, "empty").create_only());
    /// for (key, answer) in carts.multi_put(writes).await {
    ///     println!("{key:?}: {:?}", ringdove::client::Outcome::of(&answer));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn multi_put(&self, writes: impl IntoIterator<Item = Write>) -> MultiPut {
        MultiPut::new(writes)
    }

    /// The keys that have a value, one after the other.
    pub fn keys(&self) -> Keys {
        Keys::new(self.inner.clone(), self.name.clone(), Which::Live)
    }

    /// The keys that have several values, which a read and a write with its context resolves.
    pub fn conflicts(&self) -> Keys {
        Keys::new(self.inner.clone(), self.name.clone(), Which::Conflicts)
    }

    pub(super) fn operation_timeout(&self) -> Duration {
        self.inner.settings.operation_timeout
    }

    fn key(&self, name: &[u8]) -> Result<Key, KeyError> {
        Key::new(self.name.as_bytes(), name)
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.name).finish()
    }
}
