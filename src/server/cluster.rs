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
use crate::membership::{ClusterState, MemberEntry, Standing, StateError, Topology};
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
    /// A node that was removed from the cluster wants to be in it.
    #[error(
        "{name} ({id}) was removed from this cluster, and a removed id never comes back. To use the machine \
         again start it with an empty node.data_dir: it gets a new id, and joins like any new node"
    )]
    Removed {
        /// The name of the node.
        name: String,
        /// Its id.
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
        entry: MemberEntry,
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
        if !state.enter(me, entry.clone()) {
            settle_entry(&mut state, me, entry);
        }
        state.form(initial_members);
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

    /// Whether the cluster has begun.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.topology.load().state().is_formed()
    }

    /// How many members are known, and how many the cluster begins with.
    #[must_use]
    pub fn met(&self) -> (usize, usize) {
        (self.members(), self.initial_members)
    }

    fn members(&self) -> usize {
        self.topology.load().state().serving().count()
    }

    /// The other members and their addresses.
    #[must_use]
    pub fn others(&self) -> Vec<(NodeId, String)> {
        let topology = self.topology.load();
        let others = topology.state().present().filter(|(id, _)| *id != self.me);
        others.map(|(id, entry)| (id, entry.address().to_owned())).collect()
    }

    /// Says why a node may not exchange states with this one.
    ///
    /// # Errors
    /// When it has been removed.
    pub fn admits(&self, node: NodeId) -> Result<(), ClusterError> {
        let topology = self.topology.load();
        match topology.member(node) {
            Some(entry) if entry.standing == Standing::Removed => {
                let (name, id) = (entry.name().to_owned(), node.to_string());
                Err(ClusterError::Removed { name, id })
            }
            _ => Ok(()),
        }
    }

    /// Takes over what `theirs` knows better, and forms the cluster if now enough know each other.
    /// Returns whether anything changed.
    ///
    /// # Errors
    /// When it is of another cluster.
    pub fn merge(&self, theirs: &ClusterState) -> Result<bool, ClusterError> {
        let mut state = self.state();
        let mut merged = state.clone();
        if !merged.merge(theirs)? {
            return Ok(false);
        }
        merged.form(self.initial_members);
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
        if !changed.add_bucket(name, settings) {
            let n = settings.n;
            let why = format!(
                "n={n} is one replica count too many for a ring of this size; give the \
                               bucket a count that another bucket has (`ringdove bucket list`)"
            );
            return Err(ClusterError::Settings(why));
        }
        self.install(&mut state, changed)
    }

    fn install(&self, state: &mut ClusterState, changed: ClusterState) -> Result<(), ClusterError> {
        persist(&self.path, &changed)?;
        let topology = Topology::after(&self.topology.load(), changed.clone());
        self.topology.store(Arc::new(topology));
        *state = changed;
        Ok(())
    }
}

/// Brings this node's entry up to date with its configuration. Its zone and weight count only until
/// the cluster has formed: then they are an operator's to change.
fn settle_entry(state: &mut ClusterState, me: NodeId, entry: MemberEntry) {
    let is_formed = state.is_formed();
    let Some(known) = state.members.get_mut(&me) else { return };
    known.contact.set(entry.contact.value);
    if !is_formed {
        known.zone.set(entry.zone.value);
        known.weight.set(entry.weight.value);
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
    use crate::membership::Contact;

    fn member(id: NodeId, name: &str) -> MemberEntry {
        let (name, address) = (name.to_owned(), format!("{name}:7400"));
        let contact = Contact { name, address, text_address: String::new() };
        MemberEntry::candidate(id, contact, "a", 100)
    }

    fn open(directory: &Path, id: u128, name: &str) -> Cluster {
        let fresh = ClusterState::new("test", 64);
        let id = NodeId(id);
        Cluster::open(directory, fresh, id, member(id, name), 2).unwrap()
    }

    #[test]
    fn members_that_meet_form_a_cluster_and_strangers_are_candidates() {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let one = open(directories[0].path(), 1, "one");
        let two = open(directories[1].path(), 2, "two");
        let three = open(directories[2].path(), 3, "three");
        assert!(!one.is_formed());
        assert!(one.merge(two.topology().state()).unwrap());
        assert!(one.is_formed());
        assert!(two.merge(one.topology().state()).unwrap());
        assert_eq!(one.topology().version(), two.topology().version());
        assert!(three.merge(one.topology().state()).unwrap());
        assert!(one.merge(three.topology().state()).unwrap());
        let topology = one.topology();
        assert_eq!(topology.member(NodeId(3)).unwrap().standing, Standing::Candidate);
        assert_eq!(topology.version(), three.topology().version());
    }

    #[test]
    fn a_state_outlives_a_restart_and_a_changed_address_is_a_newer_entry() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), 1, "one").create_bucket("b", BucketSettings::default()).unwrap();
        let again = open(directory.path(), 1, "moved");
        let topology = again.topology();
        assert!(topology.bucket("b").is_some());
        assert_eq!(topology.member(NodeId(1)).unwrap().contact.version, 2);
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
