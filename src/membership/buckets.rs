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
    /// Another N would need data to move, which does not happen for existing buckets yet.
    #[error(
        "n of bucket {name:?} is {n} and cannot be changed yet in this release: create a bucket with the n you \
         want, and copy the keys"
    )]
    FixedCount {
        /// The bucket.
        name: String,
        /// Its replica count.
        n: u8,
    },
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

    /// Gives a bucket other settings; the same again is no error.
    ///
    /// # Errors
    /// When there is none of that name, its replica count would change, or the settings make no
    /// sense.
    pub fn set_bucket(&mut self, name: &str, settings: BucketSettings) -> Result<(), BucketError> {
        check(name, &settings)?;
        let unknown = || BucketError::Unknown(name.to_owned());
        let entry = self.buckets.get_mut(name).ok_or_else(unknown)?;
        let n = entry.settings.n;
        if settings.n != n {
            return Err(BucketError::FixedCount { name: name.to_owned(), n });
        }
        if entry.settings != settings {
            entry.settings = settings;
            entry.version += 1;
        }
        Ok(())
    }
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
        let refused = state.set_bucket("b", more).unwrap_err();
        assert_eq!(refused, BucketError::FixedCount { name: "b".to_owned(), n: 2 });
        assert!(matches!(state.set_bucket("c", other), Err(BucketError::Unknown(_))));
    }
}
