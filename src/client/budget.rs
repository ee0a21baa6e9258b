//! How much more than its callers ask for a client may send.
//!
//! Retries multiply load exactly when a cluster has none to spare. Every operation pays a share
//! of a token into a bucket, every retry takes a whole one out, and when the bucket is empty the
//! failure goes to the caller at once. A node that dies fails everything under way on its
//! connection together, so the bucket is deep enough for that once; after it, retries are at most
//! the given share of the operations, however long the trouble lasts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A token, in the unit of the bucket.
const TOKEN: u64 = 100;

/// A bucket of tokens for retries, shared by all operations of a client.
#[derive(Debug)]
pub(super) struct RetryBudget {
    percent: u64,
    most: u64,
    level: AtomicU64,
}

impl RetryBudget {
    /// A full bucket of `burst` tokens into which each operation pays `percent` of one.
    pub(super) fn new(percent: u8, burst: u16) -> Self {
        let most = u64::from(burst) * TOKEN;
        Self { percent: percent.into(), most, level: AtomicU64::new(most) }
    }

    /// An operation begins.
    pub(super) fn deposit(&self) {
        self.change(|level| Some((level + self.percent).min(self.most)));
    }

    /// Whether a retry may be sent now; takes its token.
    pub(super) fn withdraw(&self) -> bool {
        self.change(|level| level.checked_sub(TOKEN))
    }

    fn change(&self, to: impl FnMut(u64) -> Option<u64>) -> bool {
        // Only the count matters, and nothing is published under it.
        self.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_end_with_the_burst_and_then_follow_the_share() {
        let budget = RetryBudget::new(20, 3);
        let granted = (0..10).filter(|_| budget.withdraw()).count();
        assert_eq!(granted, 3);
        let granted = (0..100)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(granted, 20);
    }

    #[test]
    fn quiet_times_do_not_fill_it_beyond_its_brim() {
        let budget = RetryBudget::new(100, 2);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!((0..10).filter(|_| budget.withdraw()).count(), 2);
    }
}
