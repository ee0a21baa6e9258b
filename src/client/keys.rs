//! The keys of a bucket, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use super::operation::Effect;
use super::{Inner, Level, Listed, Result};
use crate::limits;
use crate::wire::messages::{Control, ControlReply, Listing, ListingPage, Which};

/// The keys of a bucket, in no order that means anything. Asks for a page when it has none left.
///
/// A key that lives from the first page to the last is seen at least once, whatever nodes and members
/// do meanwhile; one that is deleted or expires on the way may be seen or not, one whose write was
/// refused or is unknown likewise. A key may be seen twice. "Lives" means: a write of it was
/// acknowledged by W owners of its partition before, and it was not deleted since.
///
/// ```no_run
/// # async fn run(carts: ringdove::client::Bucket) -> ringdove::client::Result<()> {
/// let mut keys = carts.keys().prefix("alice/");
/// while let Some(listed) = keys.next().await? {
///     println!("{}", listed.key.escape_ascii());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is listed until `next` is awaited"]
pub struct Keys {
    inner: Arc<Inner>,
    bucket: Arc<str>,
    which: Which,
    prefix: Vec<u8>,
    r: Level,
    page_keys: u32,
    /// Where to go on; `None` behind the last page.
    cursor: Option<u64>,
    page: VecDeque<Listed>,
}

impl Keys {
    pub(super) fn new(inner: Arc<Inner>, bucket: Arc<str>, which: Which) -> Self {
        let (prefix, page) = (Vec::new(), VecDeque::new());
        let (r, page_keys) = (Level::Default, limits::PAGE_KEYS as u32);
        Self { inner, bucket, which, prefix, r, page_keys, cursor: Some(0), page }
    }

    /// Only keys that begin with this.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Owners of each partition that must answer. Unless said, N-W+1 by the W of the bucket: fewer may
    /// miss keys whose write was acknowledged.
    pub fn r(mut self, level: impl Into<Level>) -> Self {
        self.r = level.into();
        self
    }

    /// Keys of one page, at most 1000, which is the default.
    pub fn page_keys(mut self, count: u32) -> Self {
        self.page_keys = count;
        self
    }

    /// Goes on where [`Keys::cursor`] of the same bucket, and another client or day, has been.
    pub fn from_cursor(mut self, cursor: u64) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Where the page behind the one that [`Keys::next`] is in begins; `None` when that is the last.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// The next key; `None` when there are no more.
    ///
    /// # Errors
    /// As any request, and [`Kind::Unavailable`](super::Kind::Unavailable) when too few owners of a partition
    /// answer. Nothing is lost by it: asked again, the listing goes on where it was.
    pub async fn next(&mut self) -> Result<Option<Listed>> {
        loop {
            if let Some(listed) = self.page.pop_front() {
                return Ok(Some(listed));
            }
            let Some(cursor) = self.cursor else { return Ok(None) };
            let ListingPage { cursor, keys } = self.ask(cursor).await?;
            self.cursor = (cursor != 0).then_some(cursor);
            self.page = keys.into();
        }
    }

    async fn ask(&self, cursor: u64) -> Result<ListingPage> {
        let (bucket, prefix) = (self.bucket.to_string(), self.prefix.clone());
        let (which, count, r) = (self.which, self.page_keys, self.r);
        let message = Control::Keys(Listing { bucket, which, prefix, cursor, count, r });
        let take = |reply| match reply {
            ControlReply::Keys(page) => Some(page),
            _ => None,
        };
        self.inner.control(Effect::Reads, message, take).await
    }
}
