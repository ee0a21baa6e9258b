//! One value out of siblings.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Value;

/// Makes one value of siblings: values whose writers did not see each other.
///
/// The answer should not depend on the order of the siblings, or two clients that resolve the
/// same ones write different results. Closures over `&[Value]` are resolvers too.
pub trait Resolve {
    /// The one value. `siblings` are at least two, newest first.
    fn resolve(&self, siblings: &[Value]) -> Bytes;
}

impl<F: Fn(&[Value]) -> Bytes> Resolve for F {
    fn resolve(&self, siblings: &[Value]) -> Bytes {
        self(siblings)
    }
}

/// The value written last, by the clocks of its coordinators; the others are lost. For values of
/// which an old one is worth nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastWriteWins;

impl Resolve for LastWriteWins {
    fn resolve(&self, siblings: &[Value]) -> Bytes {
        let newest = siblings.iter().max_by_key(|value| (value.hlc, value.dot));
        newest.map(|value| value.data.clone()).unwrap_or_default()
    }
}

/// The value of which a function says most; of equals, the one written last.
#[derive(Clone, Copy, Debug)]
pub struct MaxBy<F>(
    /// What is compared.
    pub F,
);

impl<F: Fn(&[u8]) -> K, K: Ord> Resolve for MaxBy<F> {
    fn resolve(&self, siblings: &[Value]) -> Bytes {
        let most = siblings.iter().max_by_key(|v| ((self.0)(&v.data), v.hlc, v.dot));
        most.map(|value| value.data.clone()).unwrap_or_default()
    }
}

/// Every item that any sibling has, each once and in order: nothing that somebody added is lost.
///
/// What one writer removed while another wrote comes back, as in the shopping cart of the Dynamo
/// paper (section 4.4): a set of items does not remember removals.
#[derive(Clone, Copy, Debug)]
pub struct Union {
    end: u8,
}

impl Union {
    /// Values are lines.
    #[must_use]
    pub fn of_lines() -> Self {
        Self::of_items_ending_with(b'\n')
    }

    /// Values are items, each of which ends with the byte `end`.
    #[must_use]
    pub fn of_items_ending_with(end: u8) -> Self {
        Self { end }
    }
}

impl Resolve for Union {
    fn resolve(&self, siblings: &[Value]) -> Bytes {
        let items = siblings.iter().flat_map(|value| value.data.split(|byte| *byte == self.end));
        let items: BTreeSet<&[u8]> = items.filter(|item| !item.is_empty()).collect();
        items.into_iter().flat_map(|item| item.iter().copied().chain([self.end])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Actor, Dot, Hlc};
    use crate::ids::{Incarnation, WriteId};

    fn value(hlc: u64, data: &'static str) -> Value {
        let actor = Actor { incarnation: Incarnation(1), k: 1 };
        Value {
            dot: Dot { actor, counter: hlc },
            write_id: WriteId(hlc.into()),
            hlc: Hlc(hlc),
            expires_at: None,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    #[test]
    fn the_order_of_siblings_decides_nothing() {
        let orders = [
            [value(1, "b\na\n"), value(3, "c"), value(2, "a\nb")],
            [value(3, "c"), value(2, "a\nb"), value(1, "b\na\n")],
        ];
        for siblings in orders {
            assert_eq!(LastWriteWins.resolve(&siblings), "c");
            assert_eq!(MaxBy(<[u8]>::len).resolve(&siblings), "b\na\n");
            assert_eq!(Union::of_lines().resolve(&siblings), "a\nb\nc\n");
        }
    }

    #[test]
    fn a_closure_is_a_resolver_and_any_resolver_an_object() {
        let count = |siblings: &[Value]| Bytes::from(siblings.len().to_string());
        let resolvers: [&dyn Resolve; 2] = [&count, &LastWriteWins];
        let answers = resolvers.map(|r| r.resolve(&[value(1, "x"), value(2, "y")]));
        assert_eq!(answers, ["2", "y"]);
    }
}
