//! `bucket`: create, change, list and show.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::args::{Asked, Bucket, BucketCommand};
use super::cluster::connect;
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, table};
use super::quantity::{exact_span, level, parse_span};
use crate::client::{BucketSettings, Client, Conflicts};

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
            show(&[(name.clone(), settings)], form, true)
        }
        BucketCommand::Set { name, n, r, w, conflicts, ttl } => {
            let topology = client.refresh().await?;
            let mut settings = *topology.bucket(name).ok_or_else(|| unknown(name))?;
            settings.n = n.unwrap_or(settings.n);
            settings.r = r.unwrap_or(settings.r);
            settings.w = w.unwrap_or(settings.w);
            settings.conflicts = conflicts.map_or(settings.conflicts, Into::into);
            settings.ttl_ms = ttl.map_or(settings.ttl_ms, |Expiry(ttl)| ttl.map(millis));
            client.set_bucket(name, settings).await?;
            show(&[(name.clone(), settings)], form, true)
        }
        BucketCommand::List => {
            let topology = client.refresh().await?;
            let buckets = topology.state().buckets.iter();
            let buckets: Vec<_> =
                buckets.map(|(name, entry)| (name.clone(), entry.settings)).collect();
            show(&buckets, form, false)
        }
        BucketCommand::Show { name } => {
            let topology = client.refresh().await?;
            let settings = topology.bucket(name).ok_or_else(|| unknown(name))?;
            show(&[(name.clone(), *settings)], form, true)
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

/// Shows buckets; the document is an object for `one`, else a list under `buckets`.
fn show(buckets: &[(String, BucketSettings)], form: Form, one: bool) -> Ending {
    let row = |(name, settings): &(String, BucketSettings)| {
        let ttl = settings.ttl_ms.map_or_else(|| "never".to_owned(), exact_span);
        let (r, w) = (level(settings.r), level(settings.w));
        vec![name.clone(), settings.n.to_string(), r, w, conflicts(settings).to_owned(), ttl]
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

fn document((name, settings): &(String, BucketSettings)) -> Value {
    json!({
        "name": name,
        "n": settings.n,
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
