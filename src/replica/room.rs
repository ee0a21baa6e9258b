//! When a node takes its disk to be full, and when to have room again.
//!
//! A write whose commit is refused may stand on other replicas already, and its client hears "unknown".
//! One that is not begun is passed on to another replica, or refused with nothing done. So writes end
//! before commits do:
//!
//! ```text
//!            the disk shows too little, or refuses a commit
//!   ┌──────┐ ─────────────────────────────────────────────▶ ┌──────┐
//!   │ room │                                                │ full │ no writes are begun
//!   └──────┘ ◀───────────────────────────────────────────── └──────┘
//!            the disk shows enough, and no commit was refused for TRY_AFTER
//! ```
//!
//! What the disk shows does not tell all: a commit may be larger than what is left for one. Then the first
//! refused one tells, the next is tried a second later, and people hear of room again only when a
//! commit has shown it.

use std::time::Duration;

use crate::time::Instant;

/// How often to look at the disk.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after a refused commit the next may be tried, where the disk shows room.
const TRY_AFTER: Duration = Duration::from_secs(1);

/// Room on a disk, or why there is none.
pub type IsThere = Result<(), String>;

/// What is known of the room on a disk. At first there is room.
#[derive(Debug, Default)]
pub struct Room {
    is_full: bool,
    /// When a commit was refused last, until one was not.
    refused: Option<Instant>,
    /// People were told that the disk is full.
    is_reported: bool,
}

/// What has changed, and for whom.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// What the shards are to be told.
    pub tell: Option<IsThere>,
    /// What people are to be told.
    pub report: Option<IsThere>,
}

impl Room {
    /// Whether no writes are begun.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether people were told so, and not yet of the end of it.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// The disk was looked at.
    pub fn looked(&mut self, now: Instant, shown: IsThere) -> Change {
        let may_try = self.refused.is_none_or(|at| now - at >= TRY_AFTER);
        match shown {
            Err(why) => self.end(why),
            Ok(()) if self.is_full && may_try => {
                self.is_full = false;
                // Where a commit was refused, a commit has to show it first.
                let report = self.refused.is_none().then(|| self.report_room());
                Change { tell: Some(Ok(())), report }
            }
            Ok(()) => Change::default(),
        }
    }

    /// A commit was refused for want of room.
    pub fn refused(&mut self, now: Instant, why: &str) -> Change {
        self.refused = Some(now);
        self.end(why.to_owned())
    }

    /// A commit was not refused. Says nothing new unless the end of room was reported.
    pub fn committed(&mut self) -> Change {
        self.refused = None;
        let is_over = self.is_reported && !self.is_full;
        Change { tell: None, report: is_over.then(|| self.report_room()) }
    }

    fn end(&mut self, why: String) -> Change {
        if std::mem::replace(&mut self.is_full, true) {
            return Change::default();
        }
        let is_news = !std::mem::replace(&mut self.is_reported, true);
        Change { tell: Some(Err(why.clone())), report: is_news.then_some(Err(why)) }
    }

    fn report_room(&mut self) -> IsThere {
        self.is_reported = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> IsThere {
        Err("no space left".to_owned())
    }

    fn nothing() -> Change {
        Change::default()
    }

    fn both(news: &IsThere) -> Change {
        Change { tell: Some(news.clone()), report: Some(news.clone()) }
    }

    #[test]
    fn everybody_is_told_once_when_the_disk_shows_that_it_is_full_and_when_it_is_not() {
        let (mut room, now) = (Room::default(), Instant(1));
        assert_eq!(room.looked(now, Ok(())), nothing());
        assert_eq!(room.looked(now, none()), both(&none()));
        assert_eq!(room.looked(now, none()), nothing());
        // What replicas are given is committed meanwhile.
        assert!(room.committed() == nothing() && room.is_full() && room.is_reported());
        assert_eq!(room.looked(now, Ok(())), both(&Ok(())));
        assert_eq!(room.looked(now, Ok(())), nothing());
        assert!(!room.is_full() && !room.is_reported());
    }

    #[test]
    fn after_a_refused_commit_it_is_tried_again_a_second_later_and_reported_once() {
        let (mut room, mut now) = (Room::default(), Instant(1));
        assert_eq!(room.refused(now, "no space left"), both(&none()));
        for _ in 0..3 {
            assert_eq!(room.looked(now, Ok(())), nothing(), "too early to try");
            now = now + TRY_AFTER;
            let tried = room.looked(now, Ok(()));
            assert_eq!(tried, Change { tell: Some(Ok(())), report: None });
            let refused = room.refused(now, "no space left");
            assert_eq!(refused, Change { tell: Some(none()), report: None });
        }
        now = now + TRY_AFTER;
        assert_eq!(room.looked(now, Ok(())).tell, Some(Ok(())));
        assert_eq!(room.committed(), Change { tell: None, report: Some(Ok(())) });
        assert!(!room.is_reported());
    }
}
