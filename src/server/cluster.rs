//! This node's copy of the cluster state: kept on disk, merged with others', turned into rings.
//!
//! A change is on disk before anybody is told of it. The file is written beside the old one and
//! renamed over it, so there is always one whole state.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;

use crate::ids::NodeId;
use crate::limits;
use crate::membership::{BucketEntry, ClusterState, MemberEntry, StateError, Topology};
use crate::wire::messages::BucketSettings;

/// The file's name within the data directory.
const FILE: &str = "cluster";

/// The cluster as this node knows it.
pub struct Cluster {
    path: PathBuf,
    me: NodeId,
    initial_members: usize,
    state: Mutex<ClusterState>,
    topology: ArcSwap<Topology>,
}

/// Why the cluster state could not be read or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A state does not fit this node's.
    #[error(transparent)]
    State(#[from] StateError),
    /// The data directory belongs to another cluster than the configuration says.
    #[error(
        "{path} belongs to cluster {found:?} with {partitions} partitions; the configuration says \
         otherwise. Set cluster.name and cluster.partitions back, or use another node.data_dir"
    )]
    Reconfigured {
        /// The file.
        path: PathBuf,
        /// The cluster it is of.
        found: String,
        /// Its partitions.
        partitions: u32,
    },
    /// A stranger wants to join a cluster that has formed.
    #[error(
        "this cluster has formed with {members} members and {name:?} ({id}) is none of them. Members cannot be \
         added or replaced yet in this release: start the node with the data directory it had, or give the \
         new cluster a cluster.name of its own"
    )]
    Stranger {
        /// Members of the cluster.
        members: usize,
        /// The stranger's name.
        name: String,
        /// The stranger's id.
        id: String,
    },
    /// The bucket is there already, with other settings.
    #[error("bucket {0:?} exists already with other settings")]
    BucketExists(String),
    /// A bucket's settings make no sense.
    #[error("{0}")]
    Settings(String),
}

impl Cluster {
    /// Reads the state kept in `directory`, or begins one, and enters this node in it.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn open(
        directory: &Path,
        fresh: ClusterState,
        me: NodeId,
        mut entry: MemberEntry,
        initial_members: usize,
    ) -> Result<Self, ClusterError> {
        let path = directory.join(FILE);
        let mut state = match fs::read(&path) {
            Ok(bytes) => ClusterState::decode(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh.clone(),
            Err(source) => return Err(ClusterError::Io { path, source }),
        };
        if state.cluster != fresh.cluster || state.partitions != fresh.partitions {
            let (found, partitions) = (state.cluster, state.partitions);
            return Err(ClusterError::Reconfigured { path, found, partitions });
        }
        if let Some(before) = state.members.get(&me) {
            entry.version = before.version;
            entry.removed = before.removed;
            entry.version += u64::from(entry != *before);
        }
        state.members.insert(me, entry);
        persist(&path, &state)?;
        let topology = ArcSwap::from_pointee(Topology::new(state.clone()));
        Ok(Self { path, me, initial_members, state: Mutex::new(state), topology })
    }

    fn state(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// The rings and buckets in force.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Whether as many members have met as the cluster begins with.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.members() >= self.initial_members
    }

    /// How many members are known, and how many the cluster begins with.
    #[must_use]
    pub fn met(&self) -> (usize, usize) {
        (self.members(), self.initial_members)
    }

    fn members(&self) -> usize {
        self.topology.load().state().active().count()
    }

    /// The other members and their addresses.
    #[must_use]
    pub fn others(&self) -> Vec<(NodeId, String)> {
        let topology = self.topology.load();
        let others = topology.state().active().filter(|(id, _)| *id != self.me);
        others.map(|(id, entry)| (id, entry.address.clone())).collect()
    }

    /// Takes over what `theirs` knows better; `from` is the node it came from. Returns whether
    /// anything changed.
    ///
    /// # Errors
    /// When it is of another cluster, or comes from a stranger to a cluster that has formed.
    pub fn merge(&self, from: NodeId, theirs: &ClusterState) -> Result<bool, ClusterError> {
        let mut state = self.state();
        let members = state.active().count();
        let is_known = state.members.contains_key(&from);
        if !is_known && members >= self.initial_members && theirs.members.contains_key(&from) {
            let name = theirs.members[&from].name.clone();
            return Err(ClusterError::Stranger { members, name, id: from.to_string() });
        }
        let mut merged = state.clone();
        if !merged.merge(theirs)? {
            return Ok(false);
        }
        self.install(&mut state, merged)?;
        Ok(true)
    }

    /// Creates a bucket; the same again is no error.
    ///
    /// # Errors
    /// When it exists with other settings, or the settings make no sense.
    pub fn create_bucket(&self, name: &str, settings: BucketSettings) -> Result<(), ClusterError> {
        check(name, &settings)?;
        let mut state = self.state();
        match state.buckets.get(name) {
            Some(entry) if entry.settings == settings => return Ok(()),
            Some(_) => return Err(ClusterError::BucketExists(name.to_owned())),
            None => {}
        }
        if state.buckets.len() >= limits::BUCKETS {
            let most = limits::BUCKETS;
            return Err(ClusterError::Settings(format!("a cluster has at most {most} buckets")));
        }
        let mut changed = state.clone();
        changed.buckets.insert(name.to_owned(), BucketEntry { version: 1, settings });
        self.install(&mut state, changed)
    }

    fn install(&self, state: &mut ClusterState, changed: ClusterState) -> Result<(), ClusterError> {
        persist(&self.path, &changed)?;
        self.topology.store(Arc::new(Topology::new(changed.clone())));
        *state = changed;
        Ok(())
    }
}

fn check(name: &str, settings: &BucketSettings) -> Result<(), ClusterError> {
    let refuse = |why: String| Err(ClusterError::Settings(why));
    if !crate::key::is_bucket_name(name.as_bytes()) {
        return refuse(crate::key::KeyError::BucketName.to_string());
    }
    let n = settings.n;
    if !(1..=limits::REPLICAS_MAX).contains(&n) {
        return refuse(format!("n is {n}; it must be 1 to {}", limits::REPLICAS_MAX));
    }
    for (what, level) in [("r", settings.r), ("w", settings.w)] {
        let count = level.resolve(n, n / 2 + 1);
        if !(1..=n).contains(&count) {
            return refuse(format!("{what} is {count}; with n={n} it must be 1 to {n}"));
        }
    }
    Ok(())
}

fn persist(path: &Path, state: &ClusterState) -> Result<(), ClusterError> {
    let write = || -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&state.encode())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| ClusterError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> MemberEntry {
        MemberEntry {
            version: 1,
            name: name.to_owned(),
            address: format!("{name}:7400"),
            text_address: String::new(),
            zone: "a".to_owned(),
            weight: 100,
            removed: false,
        }
    }

    fn open(directory: &Path, id: u128, name: &str) -> Cluster {
        let fresh = ClusterState::new("test", 64);
        Cluster::open(directory, fresh, NodeId(id), member(name), 2).unwrap()
    }

    #[test]
    fn members_that_meet_form_a_cluster_and_strangers_are_told_what_to_do() {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let one = open(directories[0].path(), 1, "one");
        let two = open(directories[1].path(), 2, "two");
        let three = open(directories[2].path(), 3, "three");
        assert!(!one.is_formed());
        assert!(one.merge(NodeId(2), two.topology().state()).unwrap());
        assert!(one.is_formed());
        let refused = one.merge(NodeId(3), three.topology().state()).unwrap_err().to_string();
        assert!(refused.contains("\"three\"") && refused.contains("data directory"), "{refused}");
        assert!(two.merge(NodeId(1), one.topology().state()).unwrap());
        assert_eq!(one.topology().version(), two.topology().version());
    }

    #[test]
    fn a_state_outlives_a_restart_and_a_changed_address_is_a_newer_entry() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), 1, "one").create_bucket("b", BucketSettings::default()).unwrap();
        let again = open(directory.path(), 1, "moved");
        let topology = again.topology();
        assert!(topology.bucket("b").is_some());
        assert_eq!(topology.member(NodeId(1)).unwrap().version, 2);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = open(directory.path(), 1, "one");
        let settings = BucketSettings { n: 0, ..BucketSettings::default() };
        assert!(cluster.create_bucket("b", settings).is_err());
        let w = crate::wire::messages::Level::Count(4);
        let settings = BucketSettings { w, ..BucketSettings::default() };
        assert!(cluster.create_bucket("b", settings).is_err());
        assert!(cluster.create_bucket("no/slash", BucketSettings::default()).is_err());
        let lww = BucketSettings { n: 2, ..BucketSettings::default() };
        cluster.create_bucket("b", lww).unwrap();
        cluster.create_bucket("b", lww).unwrap();
        assert!(cluster.create_bucket("b", BucketSettings::default()).is_err());
    }
}
