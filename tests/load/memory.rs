//! A target in memory that knows contexts and siblings, and forgets what it is told to.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringdove::load::target::{Basis, Failure, Found, Session, Target};

/// What it does wrong, and how often: every so-manieth write.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Acknowledges it and forgets it.
    pub loses: Option<u64>,
    /// Acknowledges a deletion and keeps what was to be deleted.
    pub keeps_deleted: Option<u64>,
    /// Answers that nobody knows, and does it every second time.
    pub unknown: Option<u64>,
}

#[derive(Default)]
struct Store {
    faults: Faults,
    writes: u64,
    next: u64,
    keys: HashMap<Vec<u8>, Vec<(u64, Bytes)>>,
    planted: Planted,
}

/// What was done wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    pub unknown_done: u64,
    pub unknown_not_done: u64,
}

/// The target.
#[derive(Clone, Default)]
pub struct Memory {
    store: Rc<RefCell<Store>>,
}

impl Memory {
    pub fn with(faults: Faults) -> Self {
        let memory = Self::default();
        memory.store.borrow_mut().faults = faults;
        memory
    }

    pub fn planted(&self) -> Planted {
        self.store.borrow().planted
    }

    /// Removes what stands of some keys that have something.
    pub fn forget(&self, count: usize) -> u64 {
        let mut store = self.store.borrow_mut();
        let there = store.keys.values_mut().filter(|values| !values.is_empty()).take(count);
        there.map(|values| std::mem::take(values).len() as u64).sum()
    }
}

impl Target for Memory {
    type Session = Self;

    fn session(&self, _number: usize) -> Self {
        self.clone()
    }

    fn last_write_wins(&self) -> bool {
        false
    }
}

/// Long enough for others to come between a read and the write behind it.
const LATENCY: Duration = Duration::from_millis(1);

impl Session for Memory {
    type Context = BTreeSet<u64>;
    const CONTEXTS: bool = true;

    async fn read(&mut self, key: &[u8], found: &mut Found<Self::Context>) -> Result<(), Failure> {
        tokio::time::sleep(LATENCY).await;
        let store = self.store.borrow();
        let values = store.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        found.values.extend(values.iter().map(|(_, value)| value.clone()));
        found.context = Some(values.iter().map(|(dot, _)| *dot).collect());
        Ok(())
    }

    async fn read_many(&mut self, _keys: &[Vec<u8>]) -> Result<(), Failure> {
        Ok(())
    }

    async fn write(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        basis: Basis<'_, Self::Context>,
    ) -> Result<Option<Self::Context>, Failure> {
        tokio::time::sleep(LATENCY).await;
        let mut store = self.store.borrow_mut();
        store.writes += 1;
        let (faults, writes) = (store.faults, store.writes);
        let is_turn = |every: Option<u64>| every.is_some_and(|every| writes.is_multiple_of(every));
        let unknown = is_turn(faults.unknown);
        let is_done = !unknown || writes / faults.unknown.unwrap_or(1) % 2 == 0;
        if unknown && value.is_some() {
            let planted = &mut store.planted;
            let count =
                if is_done { &mut planted.unknown_done } else { &mut planted.unknown_not_done };
            *count += 1;
        }
        store.next += 1;
        let dot = store.next;
        let values = store.keys.entry(key.to_vec()).or_default();
        let covers = |dot: &u64| match basis {
            Basis::Observed => true,
            Basis::Blind => false,
            Basis::Context(context) => context.contains(dot),
        };
        let keeps = value.is_none() && is_turn(faults.keeps_deleted);
        if is_done && !keeps {
            values.retain(|(dot, _)| !covers(dot));
            if let Some(value) = value.filter(|_| !is_turn(faults.loses)) {
                values.push((dot, value));
            }
        }
        if unknown {
            return Err(Failure { name: "timeout", is_unknown: true });
        }
        let mut context = match basis {
            Basis::Context(context) => context.clone(),
            Basis::Observed | Basis::Blind => BTreeSet::new(),
        };
        context.insert(dot);
        Ok(Some(context))
    }
}
