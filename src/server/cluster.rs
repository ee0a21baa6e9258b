//! This node's copy of the cluster state: kept on disk, merged with others', turned into a topology.
//!
//! There is one way in which it changes, [`Cluster::change`], and one order of things:
//!
//! ```text
//!   change the state ──▶ prepared by transfers ──▶ on disk ──▶ taken by all shards ──▶ published
//! ```
//!
//! So nobody hears of a change that this node could forget, or that one of its shards does not go
//! by yet: an owner that gives a slot away has stopped answering for it when its successor is told.
//! The file is written beside the old one and renamed over it, so there is always one whole state.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::mailbox::{Mail, Mailbox};
use super::reaping::ReapDesk;
use super::transfers::TransferDesk;
use crate::ids::NodeId;
use crate::membership::{
    BucketError, ClusterState, MemberEntry, PlanError, Standing, StateError, Topology,
};

/// The file's name within the data directory.
const FILE: &str = "cluster";

/// The cluster as this node knows it.
pub struct Cluster {
    path: PathBuf,
    me: NodeId,
    initial_members: Option<usize>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Hears of each change before anything else goes by it.
    transfers: OnceLock<Arc<TransferDesk>>,
    reaping: OnceLock<Arc<ReapDesk>>,
    /// This node leaves, and the others are being told.
    is_parting: AtomicBool,
    /// Held by the change under way.
    turn: tokio::sync::Mutex<()>,
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
    /// A bucket cannot be created or changed so.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A change of the members cannot be made so.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The state has changed since it was decided to change it so.
    #[error("the cluster state has changed meanwhile")]
    Overtaken,
    /// No other member could be told.
    #[error("no other member can be reached, and one has to know; trying on")]
    Unheard,
}

impl Cluster {
    /// Reads the state kept in `directory`, or begins one, and enters this node in it. The shards
    /// whose mail goes to `mailboxes` hear of every change.
    ///
    /// `initial_members` are so many as the cluster forms with; none for a node that waits to be
    /// told of one by its seeds.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn open(
        directory: &Path,
        fresh: ClusterState,
        me: NodeId,
        entry: MemberEntry,
        initial_members: Option<usize>,
        mailboxes: Vec<Arc<Mailbox>>,
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
            settle_entry(&mut state, me, entry)?;
        }
        if let Some(count) = initial_members {
            state.form(count);
        }
        persist(&path, &state)?;
        let topology = ArcSwap::from_pointee(Topology::new(state));
        let turn = tokio::sync::Mutex::default();
        let (transfers, reaping) = (OnceLock::new(), OnceLock::new());
        let is_parting = AtomicBool::new(false);
        Ok(Self {
            path,
            me,
            initial_members,
            mailboxes,
            transfers,
            reaping,
            is_parting,
            turn,
            topology,
        })
    }

    /// Has `transfers` and `reaping` prepare every change from now on.
    pub fn prepare_with(&self, transfers: &Arc<TransferDesk>, reaping: &Arc<ReapDesk>) {
        let _ = self.transfers.set(transfers.clone());
        let _ = self.reaping.set(reaping.clone());
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

    /// How many members are known, and how many the cluster begins with; none for a node that waits
    /// for one.
    #[must_use]
    pub fn met(&self) -> (usize, Option<usize>) {
        (self.topology.load().state().serving().count(), self.initial_members)
    }

    /// Where this node is in its life.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.topology.load().member(self.me).map_or(Standing::Candidate, |entry| entry.standing)
    }

    /// Begins or ends the time in which the others are told that this node leaves: until it ends it
    /// keeps its connections and is not gone. Returns whether that is a change.
    pub fn part(&self, is_parting: bool) -> bool {
        self.is_parting.swap(is_parting, Ordering::Relaxed) != is_parting
    }

    /// Whether this node has been removed, and nobody has to be told any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.standing() == Standing::Removed && !self.is_parting.load(Ordering::Relaxed)
    }

    /// Those whom this node keeps connections to, with their addresses: everybody else who has not
    /// been removed, and nobody once it is gone itself.
    #[must_use]
    pub fn others(&self) -> Vec<(NodeId, String)> {
        if self.is_gone() {
            return Vec::new();
        }
        let topology = self.topology.load();
        let others = topology.state().present().filter(|(id, _)| *id != self.me);
        others.map(|(id, entry)| (id, entry.address().to_owned())).collect()
    }

    /// Changes the state by `change`. When this returns, the state is on disk, all shards go by it,
    /// and it is what [`Cluster::topology`] shows; one change waits for the other.
    ///
    /// Also without a change, whatever was under way before is done when this returns.
    ///
    /// # Errors
    /// What `change` says, and when the disk fails; nothing is changed then.
    pub async fn change<T>(
        &self,
        change: impl FnOnce(&mut ClusterState) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let _turn = self.turn.lock().await;
        let before = self.topology();
        let mut state = before.state().clone();
        let answer = change(&mut state)?;
        if state == *before.state() {
            return Ok(answer);
        }
        // The ring of a large cluster, and the disk, take long enough to hold up others.
        let compute = move || Arc::new(Topology::after(&before, state));
        let computed = tokio::task::spawn_blocking(compute).await;
        let topology = computed.expect("computing a topology does not panic");
        if let Some(transfers) = self.transfers.get() {
            transfers.prepare(&topology).await?;
        }
        if let Some(reaping) = self.reaping.get() {
            reaping.prepare(&topology);
        }
        let (path, installed) = (self.path.clone(), topology.clone());
        let written = tokio::task::spawn_blocking(move || persist(&path, installed.state())).await;
        written.expect("writing a file does not panic")?;
        self.give_to_shards(&topology).await;
        self.topology.store(topology);
        Ok(answer)
    }

    /// Has all shards go by `topology`.
    async fn give_to_shards(&self, topology: &Arc<Topology>) {
        let give = |mailbox: &Arc<Mailbox>| {
            let (taken, is_taken) = oneshot::channel();
            mailbox.post([Mail::Topology(topology.clone(), taken)]);
            is_taken
        };
        let waits: Vec<oneshot::Receiver<()>> = self.mailboxes.iter().map(give).collect();
        for wait in waits {
            // Dropped, never sent: at the end of the turn, or with a shard that has stopped.
            let _ = wait.await;
        }
    }

    /// Takes over what `theirs` knows better, and forms the cluster if now enough know each other.
    ///
    /// # Errors
    /// When it is of another cluster.
    pub async fn merge(&self, theirs: &ClusterState) -> Result<(), ClusterError> {
        self.change(|state| {
            state.merge(theirs)?;
            if let Some(count) = self.initial_members {
                state.form(count);
            }
            Ok(())
        })
        .await
    }
}

/// Brings this node's entry up to date with its configuration. Its zone and weight count only until
/// the cluster has formed: then they are an operator's to change.
fn settle_entry(
    state: &mut ClusterState,
    me: NodeId,
    entry: MemberEntry,
) -> Result<(), ClusterError> {
    let is_formed = state.is_formed();
    let Some(known) = state.members.get_mut(&me) else { return Ok(()) };
    if known.standing == Standing::Removed {
        let (name, id) = (known.name().to_owned(), me.to_string());
        return Err(ClusterError::Removed { name, id });
    }
    known.contact.set(entry.contact.value.clone());
    let name = known.name().to_owned();
    if !is_formed {
        known.zone.set(entry.zone.value.clone());
        known.weight.set(entry.weight.value);
        return Ok(());
    }
    let (zone, weight) = (entry.zone(), entry.weight());
    if zone != known.zone() {
        tracing::warn!(
            configured = zone,
            in_force = known.zone(),
            "node.zone counts only when a node is new; change it with `ringdove member zone {name} {zone}`"
        );
    }
    if weight != known.weight() {
        tracing::warn!(
            configured = weight,
            in_force = known.weight(),
            "node.weight counts only when a node is new; change it with `ringdove member weight {name} {weight}`"
        );
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
    use crate::wire::messages::BucketSettings;

    fn member(id: NodeId, name: &str) -> MemberEntry {
        let (name, address) = (name.to_owned(), format!("{name}:7400"));
        let contact = Contact { name, address, text_address: String::new() };
        MemberEntry::candidate(id, contact, "a", 100)
    }

    /// A cluster of two, and a shard that takes what it is given.
    fn open(directory: &Path, id: u128, name: &str) -> Cluster {
        let fresh = ClusterState::new("test", 64);
        let id = NodeId(id);
        let mailbox = Arc::new(Mailbox::new(1));
        let mailboxes = vec![mailbox.clone()];
        std::thread::spawn(move || {
            loop {
                let mut mail = Vec::new();
                mailbox.take(&mut mail, None);
            }
        });
        Cluster::open(directory, fresh, id, member(id, name), Some(2), mailboxes).unwrap()
    }

    #[tokio::test]
    async fn members_that_meet_form_a_cluster_and_strangers_are_candidates() {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let one = open(directories[0].path(), 1, "one");
        let two = open(directories[1].path(), 2, "two");
        let three = open(directories[2].path(), 3, "three");
        assert!(!one.is_formed());
        one.merge(two.topology().state()).await.unwrap();
        assert!(one.is_formed());
        two.merge(one.topology().state()).await.unwrap();
        assert_eq!(one.topology().version(), two.topology().version());
        three.merge(one.topology().state()).await.unwrap();
        one.merge(three.topology().state()).await.unwrap();
        assert_eq!((one.standing(), three.standing()), (Standing::Member, Standing::Candidate));
        assert_eq!(one.topology().version(), three.topology().version());
    }

    #[tokio::test]
    async fn a_state_outlives_a_restart_and_a_changed_address_is_a_newer_entry() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = open(directory.path(), 1, "one");
        let create =
            |state: &mut ClusterState| Ok(state.create_bucket("b", BucketSettings::default())?);
        cluster.change(create).await.unwrap();
        let again = open(directory.path(), 1, "moved");
        let topology = again.topology();
        assert!(topology.bucket("b").is_some());
        assert_eq!(topology.member(NodeId(1)).unwrap().contact.version, 2);
    }

    #[tokio::test]
    async fn a_change_is_on_disk_and_taken_by_the_shards_before_it_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (fresh, me) = (ClusterState::new("test", 64), NodeId(1));
        let mailbox = Arc::new(Mailbox::new(1));
        let mailboxes = vec![mailbox.clone()];
        let cluster =
            Cluster::open(directory.path(), fresh, me, member(me, "one"), Some(1), mailboxes);
        let cluster = Arc::new(cluster.unwrap());
        let before = cluster.topology().version();
        let changing = tokio::spawn({
            let cluster = cluster.clone();
            async move {
                let settings = BucketSettings::default();
                cluster.change(|state| Ok(state.create_bucket("b", settings)?)).await
            }
        });
        let taking = tokio::task::spawn_blocking(move || {
            let mut mail = Vec::new();
            mailbox.take(&mut mail, None);
            mail
        });
        let mut mail = taking.await.unwrap();
        let Some(Mail::Topology(given, taken)) = mail.pop() else { panic!("a topology") };
        let on_disk = ClusterState::decode(&fs::read(directory.path().join(FILE)).unwrap());
        assert_eq!(on_disk.as_ref(), Ok(given.state()));
        assert_eq!(cluster.topology().version(), before, "the shard has not taken it yet");
        drop(taken);
        changing.await.unwrap().unwrap();
        assert_eq!(cluster.topology().version(), given.version());
    }

    #[tokio::test]
    async fn whoever_was_removed_does_not_start_again() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = open(directory.path(), 1, "one");
        let remove = |state: &mut ClusterState| {
            state.members.get_mut(&NodeId(1)).unwrap().standing = Standing::Removed;
            Ok(())
        };
        cluster.change(remove).await.unwrap();
        assert!(cluster.others().is_empty());
        let (fresh, me) = (ClusterState::new("test", 64), NodeId(1));
        let again = Cluster::open(directory.path(), fresh, me, member(me, "one"), Some(2), vec![]);
        let refused = again.err().unwrap().to_string();
        assert!(refused.contains("was removed") && refused.contains("node.data_dir"), "{refused}");
    }
}
