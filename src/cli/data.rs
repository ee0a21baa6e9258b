//! `get`, `put` and `del`.
//!
//! Values are bytes: what goes in comes out, with nothing before it and, unless a person is
//! looking, nothing behind it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use serde_json::{Value, json};

use super::args::{Asked, Del, Get, Put, Reach, Target};
use super::cluster::{Door, Found, Order, Question, Replaces, Written};
use super::exit::{Ending, Exit, Failure};
use super::output::{self, Form, bytes_json, bytes_line};
use super::quantity::{counted, micros};
use crate::client::{self, Context, Hop, Receipt};
use crate::key::Key;
use crate::limits;

const DEFAULT_BUCKET: &str = "default";

pub(super) async fn run_get(asked: &Asked<Get>) -> Ending {
    let question = &asked.question;
    let key = key_of(&question.target, DEFAULT_BUCKET)?;
    let door = Door::open(&asked.cluster, question.target.direct).await?;
    Ok(get(&door, key, question, asked.form()).await?.0)
}

pub(super) async fn run_put(asked: &Asked<Put>) -> Ending {
    let question = &asked.question;
    let key = key_of(&question.target, DEFAULT_BUCKET)?;
    let value = value_of(&question.value)?;
    let door = Door::open(&asked.cluster, question.target.direct).await?;
    put(&door, key, value, question, None, asked.form()).await?;
    Ok(Exit::Done)
}

pub(super) async fn run_del(asked: &Asked<Del>) -> Ending {
    let question = &asked.question;
    let key = key_of(&question.target, DEFAULT_BUCKET)?;
    let door = Door::open(&asked.cluster, question.target.direct).await?;
    del(&door, key, question, None, asked.form()).await?;
    Ok(Exit::Done)
}

/// Reads a key and shows what is there. Gives the context, for the write that follows.
pub(super) async fn get(
    door: &Door,
    key: Key,
    get: &Get,
    form: Form,
) -> Result<(Exit, Context), Failure> {
    let (r, pr) = (get.r.unwrap_or_default(), get.pr.unwrap_or_default());
    let (strict, trace) = (get.strict, get.trace);
    let question = Question { key: key.clone(), r, pr, strict, trace };
    let found = door.read(question).await?;
    if get.receipt && form == Form::Text {
        output::note(&format!("context: {}", found.context));
        output::note(&format!("receipt: {}", receipt_line(&found.receipt)));
    }
    if form == Form::Text {
        found.trace.iter().for_each(|hop| output::note(&hop_line(hop)));
    }
    let siblings = found.values.len();
    if get.one && siblings > 1 {
        let message = format!("the key has {siblings} values that did not know of each other");
        let mut failure = Failure::new(Exit::Siblings, "conflict", message)
            .hint("read them without --one, and put what they come to with --context");
        failure.context = Some(Box::new(found.context));
        return Err(failure);
    }
    match form {
        Form::Json => output::print_json(&found_json(&key, &found))?,
        Form::Text => show(&found, get.receipt)?,
    }
    let exit = if siblings == 0 { Exit::No } else { Exit::Done };
    Ok((exit, found.context))
}

/// Shows values to a person or a pipe.
fn show(found: &Found, context_is_shown: bool) -> Result<(), Failure> {
    match &found.values[..] {
        [] if found.deleted => output::note("not found (it was deleted)"),
        [] => output::note("not found"),
        [value] => {
            output::print(&value.data)?;
            if output::is_terminal() {
                output::print(b"\n")?;
            }
        }
        siblings => {
            let mut list = String::new();
            for (at, value) in siblings.iter().enumerate() {
                let _ = writeln!(list, "{}) {}", at + 1, bytes_line(&value.data));
            }
            output::print(list.as_bytes())?;
            if !context_is_shown {
                output::note(&format!("context: {}", found.context));
            }
            output::note(&format!(
                "{} siblings, newest first: put what they come to with --context",
                siblings.len()
            ));
        }
    }
    Ok(())
}

/// Writes a key. `seen` is what an earlier command has read: it is replaced if the command itself
/// does not say what to replace. Gives the context of the write.
pub(super) async fn put(
    door: &Door,
    key: Key,
    value: Bytes,
    put: &Put,
    seen: Option<Context>,
    form: Form,
) -> Result<Context, Failure> {
    let replaces = match (&put.context, put.new, put.blind) {
        (Some(context), _, _) => Replaces::Seen(context.clone()),
        (None, true, _) => Replaces::New,
        (None, _, true) => Replaces::Nothing,
        (None, false, false) => seen.map_or(Replaces::Observed, Replaces::Seen),
    };
    let order = order(key, Some(value), replaces, &put.reach);
    write(door, Order { ttl: put.ttl, ..order }, &put.reach, form).await
}

/// Deletes a key; as [`put`].
pub(super) async fn del(
    door: &Door,
    key: Key,
    del: &Del,
    seen: Option<Context>,
    form: Form,
) -> Result<Context, Failure> {
    let replaces = del.context.clone().or(seen).map_or(Replaces::Observed, Replaces::Seen);
    write(door, order(key, None, replaces, &del.reach), &del.reach, form).await
}

fn order(key: Key, value: Option<Bytes>, replaces: Replaces, reach: &Reach) -> Order {
    let (w, pw) = (reach.w.unwrap_or_default(), reach.pw.unwrap_or_default());
    let (strict, repeats) = (reach.strict, reach.write_id);
    Order { key, value, replaces, ttl: None, w, pw, strict, repeats }
}

async fn write(door: &Door, order: Order, reach: &Reach, form: Form) -> Result<Context, Failure> {
    let (key, deletes) = (order.key.clone(), order.value.is_none());
    let written = door.write(order).await?;
    if reach.receipt && form == Form::Text {
        output::note(&format!("context: {}", written.context));
    }
    let done = if deletes { "deleted" } else { "written" };
    let text = format!("{done}: {}\n", receipt_line(&written.receipt));
    form.answer(&text, || written_json(&key, &written))?;
    Ok(written.context)
}

/// The key a command names, in `bucket` unless it names one.
pub(super) fn key_of(target: &Target, bucket: &str) -> Result<Key, Failure> {
    named(&target.key, target.bucket.as_deref().unwrap_or(bucket))
}

/// A key of a bucket.
pub(super) fn named(key: &OsStr, bucket: &str) -> Result<Key, Failure> {
    Ok(Key::new(bucket.as_bytes(), key.as_bytes())?)
}

/// The value a command names; `-` is standard input.
fn value_of(value: &OsStr) -> Result<Bytes, Failure> {
    if value != "-" {
        return Ok(bytes_of(value));
    }
    // One byte more than is ever taken, so that too much is seen to be too much.
    let mut input = std::io::stdin().lock().take(limits::VALUE_BYTES_HARD as u64 + 1);
    let mut bytes = Vec::new();
    match input.read_to_end(&mut bytes) {
        Ok(read) if read > limits::VALUE_BYTES_HARD => {
            let message = format!("the value is larger than {} bytes", limits::VALUE_BYTES_HARD);
            Err(Failure::new(Exit::Refused, "too_large", message)
                .hint("cut it into pieces, each under a key of its own"))
        }
        Ok(_) => Ok(bytes.into()),
        Err(error) => Err(Failure::usage(format!("cannot read standard input: {error}"))),
    }
}

/// A word of the command line, byte for byte.
pub(super) fn bytes_of(word: &OsStr) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

fn receipt_line(receipt: &Receipt) -> String {
    let Receipt { n, needed, acks, fallbacks, fsynced, zones, .. } = *receipt;
    let mut line = format!("{acks} of {n} replicas answered, {needed} needed");
    if fallbacks > 0 {
        let _ = write!(line, ", {} among them", counted(fallbacks.into(), "stand-in"));
    }
    if fsynced > 0 {
        let _ = write!(line, "; {fsynced} on disk");
    }
    let _ = write!(line, "; {}; {}", counted(zones.into(), "zone"), micros(receipt.micros));
    line
}

fn hop_line(hop: &Hop) -> String {
    format!("trace: {:>8}  {}  {}", micros(hop.micros), hop.node.short(), hop.what)
}

fn found_json(key: &Key, found: &Found) -> Value {
    let hop =
        |hop: &Hop| json!({ "node": hop.node.to_string(), "micros": hop.micros, "what": hop.what });
    json!({
        "bucket": key.bucket(),
        "key": bytes_json(key.name()),
        "found": !found.values.is_empty(),
        "deleted": found.deleted,
        "values": found.values.iter().map(value_json).collect::<Vec<_>>(),
        "context": found.context.to_string(),
        "receipt": receipt_json(&found.receipt),
        "trace": found.trace.iter().map(hop).collect::<Vec<_>>(),
    })
}

fn value_json(value: &client::Value) -> Value {
    json!({
        "value": bytes_json(&value.data),
        "written_at_ms": value.hlc.wall().0,
        "expires_at_ms": value.expires_at.map(|at| at.0),
        "dot": value.dot.to_string(),
        "write_id": value.write_id.to_string(),
    })
}

fn written_json(key: &Key, written: &Written) -> Value {
    json!({
        "bucket": key.bucket(),
        "key": bytes_json(key.name()),
        "context": written.context.to_string(),
        "write_id": written.write_id.to_string(),
        "receipt": receipt_json(&written.receipt),
    })
}

fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "n": receipt.n,
        "needed": receipt.needed,
        "acks": receipt.acks,
        "primaries": receipt.primaries,
        "fallbacks": receipt.fallbacks,
        "fsynced": receipt.fsynced,
        "zones": receipt.zones,
        "coordinator": receipt.coordinator.to_string(),
        "micros": receipt.micros,
        "epoch": receipt.topology.epoch,
    })
}
