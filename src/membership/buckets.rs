//! Creating buckets and changing their settings.

use super::ClusterState;
use crate::key::{KeyError, is_bucket_name};
use crate::limits;
use crate::wire::messages::BucketSettings;

/// Why a bucket was not created or changed. Nothing was changed; whoever asked can mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The bucket to create is there already, with other settings.
    #[error("bucket {0:?} exists already with other settings")]
    Exists(String),
    /// The bucket to change is not there.
    #[error("there is no bucket {0:?}; `ringdove bucket list` shows what is there")]
    Unknown(String),
    /// No bucket can have that name.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// A number is out of its range.
    #[error("{what} is {actual}; it must be 1 to {most}")]
    Range {
        /// Which number.
        what: &'static str,
        /// What it is.
        actual: u8,
        /// What it may be at most.
        most: u8,
    },
    /// A level that asks for more replicas than the bucket has now, or will have.
    #[error(
        "{what}={actual} of bucket {name:?} does not fit n={n}: give it a {what} of at most {n} first \
         (`ringdove bucket set {name} --{what} quorum`)"
    )]
    Level {
        /// The bucket.
        name: String,
        /// Which level.
        what: &'static str,
        /// What it is.
        actual: u8,
        /// The smaller of the two replica counts.
        n: u8,
    },
    /// Its replica count is changing already.
    #[error(
        "bucket {name:?} is moving from n={n} to n={next}: wait until it has arrived \
         (`ringdove wait --transfers-done`), then plan the next change"
    )]
    Moving {
        /// The bucket.
        name: String,
        /// Its replica count.
        n: u8,
        /// The one it will have.
        next: u8,
    },
    /// The plan says another count already.
    #[error(
        "the plan says already that bucket {name:?} gets n={planned}. Commit that first, or start over with \
         `ringdove abort`"
    )]
    Planned {
        /// The bucket.
        name: String,
        /// The count that is staged.
        planned: u8,
    },
    /// There are fewer members than replicas are asked for.
    #[error(
        "{members} members cannot keep {n} copies of each key of bucket {name:?}: plan the join of more nodes first"
    )]
    FewMembers {
        /// The bucket.
        name: String,
        /// The count asked for.
        n: u8,
        /// Members on the ring after the plan.
        members: usize,
    },
    /// There is no cluster yet.
    #[error("the cluster has not formed: its buckets get another n once it has")]
    Forming,
    /// Another bucket, or another replica count, would make the cluster state too large.
    #[error("{0}")]
    TooMany(String),
}

impl ClusterState {
    /// Creates a bucket; the same again is no error.
    ///
    /// # Errors
    /// When it exists with other settings, or the settings make no sense.
    pub fn create_bucket(
        &mut self,
        name: &str,
        settings: BucketSettings,
    ) -> Result<(), BucketError> {
        check(name, &settings)?;
        match self.buckets.get(name) {
            Some(entry) if entry.settings == settings => return Ok(()),
            Some(_) => return Err(BucketError::Exists(name.to_owned())),
            None => {}
        }
        if self.buckets.len() >= limits::BUCKETS {
            let most = limits::BUCKETS;
            return Err(BucketError::TooMany(format!("a cluster has at most {most} buckets")));
        }
        match self.add_bucket(name, settings) {
            true => Ok(()),
            false => Err(BucketError::TooMany(format!(
                "n={} is one replica count too many for a ring of {} partitions; give the bucket a \
                 count that another has (`ringdove bucket list`)",
                settings.n, self.partitions
            ))),
        }
    }

    /// Gives a bucket other settings; the same again is no error. Another replica count is staged,
    /// and begins when the plan is committed; everything else counts at once, and must fit both
    /// counts.
    ///
    /// # Errors
    /// When there is none of that name, the settings make no sense, or the count cannot be changed
    /// so now.
    pub fn set_bucket(&mut self, name: &str, settings: BucketSettings) -> Result<(), BucketError> {
        check(name, &settings)?;
        let unknown = || BucketError::Unknown(name.to_owned());
        let entry = self.buckets.get(name).ok_or_else(unknown)?;
        let (n, wanted) = (entry.settings.n, settings.n);
        let narrowest = [entry.home.next.map(|next| next.n), entry.planned.value];
        let narrowest = narrowest.into_iter().flatten().chain([n, wanted]).fold(n, u8::min);
        check_levels(name, &settings, narrowest)?;
        if wanted != n {
            self.check_count(name, wanted)?;
        }
        let entry = self.buckets.get_mut(name).ok_or_else(unknown)?;
        if wanted != n {
            entry.planned.set(Some(wanted));
        }
        let settings = BucketSettings { n, ..settings };
        if entry.settings != settings {
            entry.settings = settings;
            entry.version += 1;
        }
        Ok(())
    }

    /// Whether `n` can be staged for a bucket.
    fn check_count(&self, name: &str, n: u8) -> Result<(), BucketError> {
        let name = name.to_owned();
        if !self.is_formed() {
            return Err(BucketError::Forming);
        }
        let Some(entry) = self.buckets.get(&name) else { return Err(BucketError::Unknown(name)) };
        if let Some(next) = entry.home.next {
            return Err(BucketError::Moving { name, n: entry.settings.n, next: next.n });
        }
        if let Some(planned) = entry.planned.value.filter(|planned| *planned != n) {
            return Err(BucketError::Planned { name, planned });
        }
        let members = self.projected().placed().count();
        if members < usize::from(n) {
            return Err(BucketError::FewMembers { name, n, members });
        }
        let is_moving = |entry: &&super::BucketEntry| {
            entry.home.next.is_some() || entry.planned.value.is_some()
        };
        let moving = self.buckets.values().filter(is_moving).count();
        if entry.planned.value.is_none() && moving >= limits::BUCKETS_MOVING {
            return Err(BucketError::TooMany(format!(
                "{moving} buckets get another n already: wait until some have arrived \
                 (`ringdove wait --transfers-done`)"
            )));
        }
        match self.projected().has_room_for(n) {
            true => Ok(()),
            false => Err(BucketError::TooMany(format!(
                "slots of its own for n={n} are too many for a ring of {} partitions; create a \
                 bucket with a count that another has, and copy the keys",
                self.partitions
            ))),
        }
    }
}

/// Whether the levels that name a number fit `n` replicas, the fewest that the bucket has or will
/// have.
fn check_levels(name: &str, settings: &BucketSettings, n: u8) -> Result<(), BucketError> {
    for (what, level) in [("r", settings.r), ("w", settings.w)] {
        let actual = level.resolve(n, n / 2 + 1);
        if actual > n {
            return Err(BucketError::Level { name: name.to_owned(), what, actual, n });
        }
    }
    Ok(())
}

fn check(name: &str, settings: &BucketSettings) -> Result<(), BucketError> {
    if !is_bucket_name(name.as_bytes()) {
        return Err(KeyError::BucketName.into());
    }
    let n = settings.n;
    let counts = [("r", settings.r), ("w", settings.w)];
    let counts = counts.map(|(what, level)| (what, level.resolve(n, n / 2 + 1), n));
    for (what, actual, most) in [("n", n, limits::REPLICAS_MAX)].into_iter().chain(counts) {
        if !(1..=most).contains(&actual) {
            return Err(BucketError::Range { what, actual, most });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{Conflicts, Level};

    #[test]
    fn settings_that_make_no_sense_are_refused_and_change_nothing() {
        let mut state = ClusterState::new("test", 64);
        let before = state.clone();
        let sound = BucketSettings::default();
        for settings in [
            BucketSettings { n: 0, ..sound },
            BucketSettings { n: 14, ..sound },
            BucketSettings { r: Level::Count(0), ..sound },
            BucketSettings { w: Level::Count(4), ..sound },
        ] {
            assert!(matches!(state.create_bucket("b", settings), Err(BucketError::Range { .. })));
            assert!(state.set_bucket("default", settings).is_err());
        }
        assert!(state.create_bucket("no/slash", sound).is_err());
        assert_eq!(state, before);
    }

    #[test]
    fn a_bucket_is_created_once_and_changed_but_for_its_count() {
        let mut state = ClusterState::new("test", 64);
        let settings = BucketSettings { n: 2, ..BucketSettings::default() };
        state.create_bucket("b", settings).unwrap();
        state.create_bucket("b", settings).unwrap();
        assert_eq!(state.buckets["b"].version, 1);
        let other = BucketSettings { conflicts: Conflicts::LastWriteWins, ..settings };
        assert_eq!(state.create_bucket("b", other), Err(BucketError::Exists("b".to_owned())));
        state.set_bucket("b", other).unwrap();
        state.set_bucket("b", other).unwrap();
        assert_eq!((state.buckets["b"].version, state.buckets["b"].settings), (2, other));
        let more = BucketSettings { n: 3, ..other };
        assert_eq!(state.set_bucket("b", more), Err(BucketError::Forming));
        assert!(matches!(state.set_bucket("c", other), Err(BucketError::Unknown(_))));
    }
}
