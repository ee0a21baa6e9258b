//! Changes of the members, and of the replica counts of buckets: staged one by one, committed
//! together.
//!
//! ```text
//!   stage join n4 ─┐
//!   stage leave n1 ─┼──▶ the plan, in the state of every node ──commit──▶ all at once
//!   stage weight n2 ┘         │                                          (slots then change hands)
//!                             └──abort──▶ nothing has happened
//! ```
//!
//! What is staged is a register of the member or bucket it concerns, so plans that were made on two sides of
//! a network partition merge like everything else. A merged plan that makes no sense is refused
//! when it is committed.

use xxhash_rust::xxh3::xxh3_64;

use super::{ClusterState, MemberEntry, PlannedChange, Standing};
use crate::ids::NodeId;
use crate::limits;
use crate::wire::control;

/// Why a change was not staged, or a plan not committed. Nothing was changed; the operator can
/// mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no cluster to change yet.
    #[error("the cluster has not formed: start the nodes it begins with")]
    Forming,
    /// Nobody goes by that id or name.
    #[error("no member is called {0:?}; `ringdove member list` shows all")]
    Unknown(String),
    /// Several go by that name.
    #[error("{count} members are called {name:?}; give the id instead (`ringdove member list`)")]
    Ambiguous {
        /// The name.
        name: String,
        /// How many have it.
        count: usize,
    },
    /// The member was removed, which is final.
    #[error(
        "{0} was removed, and a removed id never comes back: start the node with an empty node.data_dir, and it \
         joins under a new one"
    )]
    Removed(String),
    /// Only a candidate can join.
    #[error("{name} is {standing} already; a node that can join is a candidate")]
    NotCandidate {
        /// Whom it concerns.
        name: String,
        /// What it is.
        standing: &'static str,
    },
    /// Only a member can be replaced.
    #[error(
        "{name} is a {standing} and owns nothing that could be taken over; let the other join instead"
    )]
    NotMember {
        /// Whom it concerns.
        name: String,
        /// What it is.
        standing: &'static str,
    },
    /// It is on its way out.
    #[error("{0} is leaving already; `ringdove status` shows how far it is")]
    Leaving(String),
    /// A member that answers would lose what it alone has.
    #[error(
        "{0} answers, so it is not dead: let it hand over what it has with `ringdove member leave {0}`. If it must \
         go at once, repeat this with --force"
    )]
    Alive(String),
    /// The plan already says something else for a member.
    #[error(
        "the plan says already: {planned}. Commit that first, or start over with `ringdove abort`"
    )]
    Planned {
        /// What it says.
        planned: String,
    },
    /// There would be too few members to keep N copies of each key.
    #[error(
        "{left} members would be left, and bucket {bucket:?} keeps {n} copies of each key. Plan the join of another \
         node first"
    )]
    TooFew {
        /// Members on the ring after the plan.
        left: usize,
        /// A bucket of the largest replica count.
        bucket: String,
        /// That count.
        n: u8,
    },
    /// A weight is out of its range.
    #[error("a weight is 1 to {}, in hundredths of a normal member", limits::WEIGHT_MAX)]
    Weight,
    /// A zone is not written like a name.
    #[error("a zone is written in 1 to {} characters of A-Z a-z 0-9 . _ -", limits::NAME_BYTES)]
    Zone,
    /// A bucket whose replica count is planned to change is on its way to another already: plans of
    /// two sides of a network partition have met.
    #[error(
        "bucket {0:?} gets another n already, by a change that was committed elsewhere. Start over with `ringdove \
         abort`"
    )]
    Moving(String),
    /// There is nothing to commit.
    #[error(
        "nothing is planned; stage changes with `ringdove member join|leave|replace|weight|zone` or `ringdove \
         bucket set NAME --n COUNT`"
    )]
    Nothing,
    /// Somebody has changed the plan since it was looked at.
    #[error("the plan is not the one you saw; look at it again with `ringdove plan`")]
    Changed,
}

impl ClusterState {
    /// The member that an operator means: by id, by the beginning of an id of eight digits or more,
    /// or by name. A removed member is found by its name only where nobody else has it.
    ///
    /// # Errors
    /// [`PlanError::Unknown`] or [`PlanError::Ambiguous`].
    pub fn find(&self, who: &str) -> Result<NodeId, PlanError> {
        let begins = |id: &NodeId| who.len() >= 8 && id.to_string().starts_with(who);
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for (id, entry) in &self.members {
            match entry.standing {
                _ if begins(id) => found.push(*id),
                Standing::Removed if entry.name() == who => gone.push(*id),
                _ if entry.name() == who => found.push(*id),
                _ => {}
            }
        }
        match if found.is_empty() { gone } else { found }[..] {
            [] => Err(PlanError::Unknown(who.to_owned())),
            [id] => Ok(id),
            ref several => Err(PlanError::Ambiguous { name: who.to_owned(), count: several.len() }),
        }
    }

    /// Stages `change` for `member`; the same again is no error. A member that `is_alive` can be
    /// replaced only with `force`.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn stage(
        &mut self,
        member: NodeId,
        change: PlannedChange,
        is_alive: impl Fn(NodeId) -> bool,
        force: bool,
    ) -> Result<(), PlanError> {
        if !self.is_formed() {
            return Err(PlanError::Forming);
        }
        let entry = self.known(member)?;
        if entry.planned.value.as_ref() == Some(&change) {
            return Ok(());
        }
        self.check_change(entry, &change)?;
        self.check_unplanned(member)?;
        if let PlannedChange::Replace { dead } = change {
            let gone = self.known(dead)?;
            let name = gone.name().to_owned();
            if gone.standing == Standing::Candidate {
                return Err(PlanError::NotMember { name, standing: gone.standing.name() });
            }
            self.check_unplanned(dead)?;
            if is_alive(dead) && !force {
                return Err(PlanError::Alive(name));
            }
        }
        let mut staged = self.clone();
        let entry = staged.members.get_mut(&member).expect("it is known");
        entry.planned.set(Some(change));
        staged.check_plan()?;
        *self = staged;
        Ok(())
    }

    /// The entry of a member that has not been removed.
    fn known(&self, id: NodeId) -> Result<&MemberEntry, PlanError> {
        match self.members.get(&id) {
            None => Err(PlanError::Unknown(id.to_string())),
            Some(entry) if entry.standing == Standing::Removed => {
                Err(PlanError::Removed(entry.name().to_owned()))
            }
            Some(entry) => Ok(entry),
        }
    }

    fn check_change(&self, entry: &MemberEntry, change: &PlannedChange) -> Result<(), PlanError> {
        let (name, standing) = (entry.name().to_owned(), entry.standing);
        match change {
            PlannedChange::Join | PlannedChange::Replace { .. }
                if standing != Standing::Candidate =>
            {
                Err(PlanError::NotCandidate { name, standing: standing.name() })
            }
            PlannedChange::Leave if standing == Standing::Leaving => Err(PlanError::Leaving(name)),
            PlannedChange::Weight(weight) if !(1..=limits::WEIGHT_MAX).contains(weight) => {
                Err(PlanError::Weight)
            }
            PlannedChange::Zone(zone) if !is_name(zone) => Err(PlanError::Zone),
            _ => Ok(()),
        }
    }

    /// Whether the plan says nothing about `member` yet.
    fn check_unplanned(&self, member: NodeId) -> Result<(), PlanError> {
        let replaces = |change: &PlannedChange| matches!(change, PlannedChange::Replace { dead } if *dead == member);
        for (id, change) in self.planned() {
            if id == member || replaces(change) {
                return Err(PlanError::Planned { planned: self.describe(id, change) });
            }
        }
        Ok(())
    }

    /// Whether the plan leaves enough members.
    fn check_plan(&self) -> Result<(), PlanError> {
        let (before, left) = (self.placed().count(), self.projected().placed().count());
        for (bucket, entry) in &self.buckets {
            let n = entry.widest();
            // Nobody would own the new slots that are too many, and the bucket never arrive.
            let counts = left < before || entry.planned.value.is_some();
            if counts && left < usize::from(n) {
                return Err(PlanError::TooFew { left, bucket: bucket.clone(), n });
            }
            if entry.planned.value.is_some() && entry.home.next.is_some() {
                return Err(PlanError::Moving(bucket.clone()));
            }
        }
        Ok(())
    }

    /// The replica counts that are staged, by bucket.
    pub fn planned_counts(&self) -> impl Iterator<Item = (&str, u8)> {
        let planned = |(name, entry): (_, &super::BucketEntry)| Some((name, entry.planned.value?));
        self.buckets.iter().filter_map(planned).map(|(name, n): (&String, u8)| (name.as_str(), n))
    }

    /// What is staged, in order of id.
    pub fn planned(&self) -> impl Iterator<Item = (NodeId, &PlannedChange)> {
        self.present().filter_map(|(id, entry)| Some((id, entry.planned.value.as_ref()?)))
    }

    /// A change in words: "n4 joins", "n4 takes the place of n2".
    #[must_use]
    pub fn describe(&self, member: NodeId, change: &PlannedChange) -> String {
        let name = |id: &NodeId| {
            self.members.get(id).map_or_else(|| id.short(), |entry| entry.name().to_owned())
        };
        let member = name(&member);
        match change {
            PlannedChange::Join => format!("{member} joins"),
            PlannedChange::Leave => format!("{member} leaves"),
            PlannedChange::Weight(weight) => format!("{member} gets weight {weight}"),
            PlannedChange::Zone(zone) => format!("{member} moves to zone {zone}"),
            PlannedChange::Replace { dead } => {
                format!("{member} takes the place of {}", name(dead))
            }
        }
    }

    /// Tells this plan from others; 0 when nothing is planned.
    #[must_use]
    pub fn plan_mark(&self) -> u64 {
        let planned: Vec<_> = self.planned().collect();
        let counts: Vec<_> = self.planned_counts().collect();
        match planned.is_empty() && counts.is_empty() {
            true => 0,
            false => xxh3_64(&control::encode(&(planned, counts))).max(1),
        }
    }

    /// The state as it will be when the plan is committed.
    #[must_use]
    pub fn projected(&self) -> Self {
        let mut state = self.clone();
        for (id, change) in self.planned() {
            let place_of = |dead: &NodeId| self.members.get(dead).map(|dead| dead.placed_as.value);
            let Some(entry) = state.members.get_mut(&id) else { continue };
            entry.planned.set(None);
            match change {
                PlannedChange::Join => entry.standing = entry.standing.max(Standing::Member),
                // A candidate has nothing to hand over.
                PlannedChange::Leave if entry.standing == Standing::Candidate => {
                    entry.standing = Standing::Removed;
                }
                PlannedChange::Leave => entry.standing = entry.standing.max(Standing::Leaving),
                PlannedChange::Weight(weight) => drop(entry.weight.set(*weight)),
                PlannedChange::Zone(zone) => drop(entry.zone.set(zone.clone())),
                PlannedChange::Replace { dead } => {
                    entry.standing = entry.standing.max(Standing::Member);
                    if let Some(place) = place_of(dead) {
                        entry.placed_as.set(place);
                    }
                    if let Some(dead) = state.members.get_mut(dead) {
                        dead.standing = Standing::Removed;
                        dead.planned.set(None);
                    }
                }
            }
        }
        for (name, n) in self.planned_counts() {
            if let Some(entry) = state.buckets.get_mut(name) {
                entry.planned.set(None);
            }
            state.begin_move(name, n);
        }
        state
    }

    /// Makes everything happen that is planned. With a `mark`, only the plan of that
    /// [`ClusterState::plan_mark`].
    ///
    /// # Errors
    /// When nothing is planned, the plan is another one, or would leave too few members.
    pub fn commit_plan(&mut self, mark: Option<u64>) -> Result<(), PlanError> {
        match (self.plan_mark(), mark) {
            (0, _) => return Err(PlanError::Nothing),
            (ours, Some(theirs)) if ours != theirs => return Err(PlanError::Changed),
            _ => {}
        }
        self.check_plan()?;
        *self = self.projected();
        Ok(())
    }

    /// Forgets everything that is planned; without a plan this is no error.
    pub fn abort_plan(&mut self) {
        for entry in self.members.values_mut() {
            entry.planned.set(None);
        }
        for entry in self.buckets.values_mut() {
            entry.planned.set(None);
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=limits::NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}
