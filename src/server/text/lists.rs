//! Commands about many keys at once: which there are, how many, which stand out.

use std::sync::Arc;
use std::time::Duration;

use super::answers;
use super::settings::Settings;
use crate::resp::command::Scan;
use crate::resp::{Command, Reply, glob};
use crate::server::node::Node;
use crate::wire::messages::{
    BucketTally, ClusterTally, Control, ControlReply, Failure, Listed, Listing, Outlier, Outliers,
    Response, Which,
};

/// How long one member may look for keys that stand out.
const OUTLIERS_WITHIN: Duration = Duration::from_secs(10);

/// Does one of these commands, on behalf of one connection.
pub(super) struct Lists {
    pub(super) node: Arc<Node>,
    pub(super) settings: Settings,
}

impl Lists {
    /// Answers `SCAN`, `RD.SCAN`, `DBSIZE`, `RD.CONFLICTS` or `RD.TOP`.
    pub(super) async fn run(self, command: Command) -> Reply {
        let answered = match command {
            Command::Scan(scan) => self.scan(scan).await,
            Command::DatabaseSize => Ok(size(&self.node.tallies().await, &self.settings.bucket)),
            Command::Tallies => Ok(tallies(&self.node.tallies().await)),
            Command::Conflicts { bucket, cursor, count } => {
                self.conflicts(bucket, cursor, count).await
            }
            Command::Outliers => Ok(self.outliers().await),
            _ => Ok(answers::unexpected()),
        };
        answered.unwrap_or_else(|failure| answers::failed(&failure))
    }

    async fn scan(&self, scan: Scan) -> Result<Reply, Failure> {
        let Scan { bucket, cursor, pattern, count, r } = scan;
        let bucket = bucket.unwrap_or_else(|| self.settings.bucket.clone());
        let prefix = pattern.as_deref().map_or(&[][..], glob::literal_prefix).to_vec();
        let (which, count) = (Which::Live, count as u32);
        let r = r.unwrap_or_else(|| self.settings.r());
        let page = self.node.list(Listing { bucket, which, prefix, cursor, count, r }).await?;
        let is_meant = |listed: &Listed| {
            pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, &listed.key))
        };
        let keys = page.keys.into_iter().filter(is_meant);
        let keys = keys.map(|listed| Reply::Bulk(listed.key.into())).collect();
        Ok(page_of(page.cursor, keys))
    }

    async fn conflicts(&self, bucket: String, cursor: u64, count: usize) -> Result<Reply, Failure> {
        let (which, prefix, count) = (Which::Conflicts, Vec::new(), count as u32);
        let r = self.settings.r();
        let page = self.node.list(Listing { bucket, which, prefix, cursor, count, r }).await?;
        let row = |listed: Listed| {
            let siblings = Reply::Integer(listed.siblings.into());
            Reply::Array(vec![Reply::Bulk(listed.key.into()), siblings])
        };
        Ok(page_of(page.cursor, page.keys.into_iter().map(row).collect()))
    }

    /// Asks all members, one after the other: each may scan for a second.
    async fn outliers(&self) -> Reply {
        let topology = self.node.topology();
        let mut rows = Vec::new();
        for (id, entry) in topology.state().serving() {
            let found = match id == self.node.id {
                true => self.node.outliers().await.ok(),
                false => match self.node.links.ask(id, Control::Outliers, OUTLIERS_WITHIN).await {
                    Some(Response::Control(ControlReply::Outliers(found))) => Some(found),
                    _ => None,
                },
            };
            let head = [
                ("node", Reply::text(id.to_string())),
                ("name", Reply::text(entry.name().to_owned())),
            ];
            let found = found.map_or_else(Vec::new, |found| outliers_of(found).into());
            rows.push(Reply::map(head.into_iter().chain(found)));
        }
        Reply::Array(rows)
    }
}

fn page_of(cursor: u64, rows: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(rows)])
}

fn size(tally: &ClusterTally, bucket: &str) -> Reply {
    let of = tally.buckets.iter().find(|tally| tally.bucket == bucket);
    Reply::Integer(of.map_or(0, |tally| tally.keys as i64))
}

fn tallies(tally: &ClusterTally) -> Reply {
    let row = |tally: &BucketTally| {
        let count = |count: u64| Reply::Integer(count as i64);
        Reply::map([
            ("bucket", Reply::text(tally.bucket.clone())),
            ("keys", count(tally.keys)),
            ("deleted", count(tally.deleted)),
            ("conflicts", count(tally.conflicts)),
            ("discarded", count(tally.discarded)),
            ("bytes", count(tally.bytes)),
        ])
    };
    let silent = tally.silent.iter().map(|name| Reply::text(name.clone()));
    Reply::map([
        ("buckets", Reply::Array(tally.buckets.iter().map(row).collect())),
        ("silent", Reply::Array(silent.collect())),
        ("uncounted", Reply::Integer(tally.uncounted.into())),
    ])
}

fn outliers_of(found: Outliers) -> [(&'static str, Reply); 4] {
    let rows = |outliers: Vec<Outlier>| {
        let row = |Outlier { bucket, listed }| {
            Reply::map([
                ("bucket", Reply::text(bucket)),
                ("key", Reply::Bulk(listed.key.into())),
                ("siblings", Reply::Integer(listed.siblings.into())),
                ("bytes", Reply::Integer(listed.bytes.into())),
            ])
        };
        Reply::Array(outliers.into_iter().map(row).collect())
    };
    [
        ("siblings", rows(found.siblings)),
        ("largest", rows(found.largest)),
        ("seen", Reply::Integer(found.seen as i64)),
        ("complete", Reply::Integer(found.complete.into())),
    ]
}
