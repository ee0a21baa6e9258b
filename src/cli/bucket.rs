//! `bucket`: create, change, list and show.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::args::{Asked, Bucket, BucketCommand};
use super::cluster::connect;
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, note, table};
use super::quantity::{exact_span, level, parse_span};
use crate::client::{BucketSettings, Client, Conflicts, Topology};

pub(super) async fn run(asked: &Asked<Bucket>) -> Ending {
    let client = connect(&asked.cluster).await?;
    bucket(&client, &asked.question, asked.form()).await
}

pub(super) async fn bucket(client: &Client, bucket: &Bucket, form: Form) -> Ending {
    match &bucket.command {
        BucketCommand::Create { name, n, r, w, conflicts, ttl } => {
            let ttl_ms = ttl.map(millis);
            let conflicts = (*conflicts).into();
            let settings = BucketSettings { n: *n, r: *r, w: *w, conflicts, ttl_ms };
            client.bucket(name)?;
            client.create_bucket(name, settings).await.map_err(|error| {
                let failure = Failure::from(error);
                match client.topology().bucket(name) {
                    Some(_) => failure.hint(format!("see it with `ringdove bucket show {name}`")),
                    None => failure,
                }
            })?;
            show(&[Shown::new(name, settings)], form, true)
        }
        BucketCommand::Set { name, n, r, w, conflicts, ttl } => {
            let topology = client.refresh().await?;
            let before = Shown::of(&topology, name).ok_or_else(|| unknown(name))?;
            if let Some(failure) = n.and_then(|n| before.cannot_stay(n)) {
                return Err(failure);
            }
            let mut settings = before.settings;
            settings.n = n.unwrap_or(settings.n);
            settings.r = r.unwrap_or(settings.r);
            settings.w = w.unwrap_or(settings.w);
            settings.conflicts = conflicts.map_or(settings.conflicts, Into::into);
            settings.ttl_ms = ttl.map_or(settings.ttl_ms, |Expiry(ttl)| ttl.map(millis));
            client.set_bucket(name, settings).await?;
            let topology = client.refresh().await?;
            let shown = Shown::of(&topology, name).ok_or_else(|| unknown(name))?;
            if form == Form::Text && shown.planned.is_some() {
                note(super::member::NEXT);
            }
            show(&[shown], form, true)
        }
        BucketCommand::List => {
            let topology = client.refresh().await?;
            let names = topology.state().buckets.keys();
            let buckets: Vec<Shown> = names.filter_map(|name| Shown::of(&topology, name)).collect();
            show(&buckets, form, false)
        }
        BucketCommand::Show { name } => {
            let topology = client.refresh().await?;
            let shown = Shown::of(&topology, name).ok_or_else(|| unknown(name))?;
            show(&[shown], form, true)
        }
    }
}

/// A bucket that is not there.
pub(super) fn unknown(name: &str) -> Failure {
    Failure::new(Exit::Refused, "no_bucket", format!("there is no bucket {name:?}")).hint(format!(
        "`ringdove bucket list` lists them; `ringdove bucket create {name}` makes it"
    ))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A bucket, and whether it gets another number of replicas.
struct Shown {
    name: String,
    settings: BucketSettings,
    /// Staged, and not committed.
    planned: Option<u8>,
    /// Under way: the number it will have, and in how many partitions it is read so already.
    next: Option<(u8, usize)>,
}

impl Shown {
    fn new(name: &str, settings: BucketSettings) -> Self {
        Self { name: name.to_owned(), settings, planned: None, next: None }
    }

    fn of(topology: &Topology, name: &str) -> Option<Self> {
        let entry = topology.state().buckets.get(name)?;
        let next = entry.home.next.map(|next| (next.n, topology.arrived(name)));
        let planned = entry.planned.value;
        Some(Self { planned, next, ..Self::new(name, entry.settings) })
    }

    /// Why a bucket cannot be told to keep the count that it has: it is about to get another one, which
    /// this would not change.
    fn cannot_stay(&self, n: u8) -> Option<Failure> {
        let Self { name, settings, planned, next } = self;
        let failure = |what: String| Failure::new(Exit::Refused, "planned", what);
        match (planned, next) {
            _ if n != settings.n => None,
            (Some(planned), _) => {
                let what = format!("the plan says that bucket {name:?} gets n={planned}");
                Some(failure(what).hint("`ringdove abort` drops the plan".to_owned()))
            }
            (None, Some((next, _))) => {
                let what = format!("bucket {name:?} is on its way to n={next}");
                let hint = format!(
                    "once it has arrived (`ringdove wait --transfers-done`), n={n} can be planned"
                );
                Some(failure(what).hint(hint))
            }
            (None, None) => None,
        }
    }

    /// The replica count in a table: `3`, `3 (plan: 4)`, `3 to 4`.
    fn count(&self) -> String {
        let n = self.settings.n;
        match (self.next, self.planned) {
            (Some((next, _)), _) => format!("{n} to {next}"),
            (None, Some(planned)) => format!("{n} (plan: {planned})"),
            (None, None) => n.to_string(),
        }
    }
}

/// Shows buckets; the document is an object for `one`, else a list under `buckets`.
fn show(buckets: &[Shown], form: Form, one: bool) -> Ending {
    let row = |shown: &Shown| {
        let settings = &shown.settings;
        let ttl = settings.ttl_ms.map_or_else(|| "never".to_owned(), exact_span);
        let (r, w) = (level(settings.r), level(settings.w));
        let conflicts = conflicts(settings).to_owned();
        vec![shown.name.clone(), shown.count(), r, w, conflicts, ttl]
    };
    let header = ["BUCKET", "N", "R", "W", "CONFLICTS", "EXPIRES"];
    let text = table(&header, &["N"], buckets.iter().map(row).collect());
    form.answer(&text, || {
        let documents: Vec<Value> = buckets.iter().map(document).collect();
        match &documents[..] {
            [document] if one => document.clone(),
            _ => json!({ "buckets": documents }),
        }
    })?;
    Ok(Exit::Done)
}

fn document(shown: &Shown) -> Value {
    let Shown { name, settings, planned, next } = shown;
    json!({
        "name": name,
        "n": settings.n,
        "n_planned": planned,
        "n_next": next.map(|(n, _)| n),
        "partitions_arrived": next.map(|(_, partitions)| partitions),
        "r": level(settings.r),
        "w": level(settings.w),
        "conflicts": conflicts(settings),
        "ttl_ms": settings.ttl_ms,
    })
}

fn conflicts(settings: &BucketSettings) -> &'static str {
    match settings.conflicts {
        Conflicts::Siblings => "siblings",
        Conflicts::LastWriteWins => "lww",
    }
}

/// When values of a bucket expire, as it is typed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(pub(super) Option<Duration>);

pub(super) fn parse_expiry(text: &str) -> Result<Expiry, String> {
    match text {
        "never" => Ok(Expiry(None)),
        span => parse_span(span).map(|span| Expiry(Some(span))),
    }
}

/// [`Conflicts`], as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OnConflict {
    /// Keep them all, until a writer who saw all replaces them
    Siblings,
    /// Last write wins: keep the one with the latest timestamp
    Lww,
}

impl From<OnConflict> for Conflicts {
    fn from(typed: OnConflict) -> Self {
        match typed {
            OnConflict::Siblings => Self::Siblings,
            OnConflict::Lww => Self::LastWriteWins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_about_to_change_is_not_said_to_stay() {
        let settled = Shown::new("carts", BucketSettings::default());
        let n = settled.settings.n;
        assert!(settled.cannot_stay(n).is_none());
        let planned = Shown { planned: Some(n + 1), ..Shown::new("carts", settled.settings) };
        assert!(planned.cannot_stay(n).unwrap().message.contains("gets n=4"));
        assert!(planned.cannot_stay(n + 1).is_none(), "the nodes judge that");
        let moving = Shown { next: Some((5, 7)), ..Shown::new("carts", settled.settings) };
        assert!(moving.cannot_stay(n).unwrap().message.contains("on its way to n=5"));
    }
}
