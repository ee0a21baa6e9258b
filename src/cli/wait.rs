//! `wait`: until the cluster is as it should be, or the time is up.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::args::Cluster;
use super::cluster::connect;
use super::exit::{Ending, Exit, Failure};
use super::output::Form;
use super::quantity::{counted, parse_address, parse_span};
use super::sync;
use crate::client::{Client, Goals, Open, Waiting};
use crate::wire::messages::Control;

/// How often all members are asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one look may take before the next is tried.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

const WAIT_EXAMPLES: &str = "\
Examples:
  ringdove wait --timeout 60s                   for all of these
  ringdove wait --hints-drained --timeout 10m && echo nobody is behind
  ringdove wait --synced          what was written before is on all its owners

Exit code 0 when it is so, 3 when the time is up (and a list of what is still
open, and where), 7 when no node could be asked at all.";

/// Wait until the cluster is as it should be
#[derive(Debug, Args)]
#[command(after_help = WAIT_EXAMPLES)]
pub(super) struct Wait {
    /// All members serve, see each other, and go by the same cluster state
    #[arg(long)]
    healthy: bool,
    /// Nobody keeps anything for anybody
    #[arg(long)]
    hints_drained: bool,
    /// No slot changes hands, and whoever leaves has left
    #[arg(long)]
    transfers_done: bool,
    /// Everything acknowledged before this was called is on all its owners
    #[arg(long)]
    synced: bool,
    /// Longest wait
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    timeout: Duration,
    /// A node's port for frames; several are tried in order
    #[arg(long, value_name = "HOST:PORT", env = "RINGDOVE_ADDR", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:7400", value_parser = parse_address)]
    addr: Vec<String>,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}

impl Wait {
    pub(super) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }

    /// What to wait for: what was named, or everything.
    fn goals(&self) -> Goals {
        let Self { healthy, hints_drained, transfers_done, synced, .. } = *self;
        Goals { healthy, hints_drained, transfers_done, synced }.or_all()
    }
}

/// What the last look has shown.
enum Seen {
    Open(Vec<Open>),
    /// Nobody could be asked: it may yet start.
    Nobody(Box<Failure>),
}

impl Seen {
    fn in_short(&self) -> String {
        match self {
            Self::Nobody(_) => "no node answers".to_owned(),
            Self::Open(open) => match open.as_slice() {
                [] => "nothing is open".to_owned(),
                [one] => one.to_string(),
                [one, rest @ ..] => format!("{one}, and {} more", rest.len()),
            },
        }
    }
}

pub(super) async fn run(asked: &Wait) -> Ending {
    let mut waiting = Waiting::new(asked.goals());
    let began = Instant::now();
    let deadline = began + asked.timeout;
    let mut client = None;
    let mut seen = Seen::Open(Vec::new());
    loop {
        let until = deadline.min(Instant::now() + 2 * LOOK_WITHIN);
        // The look that the end of the time interrupts changes nothing of what was seen before.
        if let Ok(look) =
            timeout_at(until, look(&mut client, &asked.addr, began, &mut waiting)).await
        {
            seen = look;
        } else if client.is_none() {
            let message = format!("no node answers at {}", asked.addr.join(", "));
            seen = Seen::Nobody(Box::new(Failure::new(Exit::Unreachable, "connect", message)));
        }
        let done = matches!(&seen, Seen::Open(open) if open.is_empty()) && client.is_some();
        if done || Instant::now() + LOOK_EVERY >= deadline {
            clear_progress();
            return tell(asked.form(), began.elapsed(), seen, done);
        }
        progress(began.elapsed(), &seen);
        sleep_until(deadline.min(Instant::now() + LOOK_EVERY)).await;
    }
}

async fn look(
    client: &mut Option<Client>,
    addr: &[String],
    began: Instant,
    waiting: &mut Waiting,
) -> Seen {
    let cluster = Cluster { addr: addr.to_vec(), timeout: LOOK_WITHIN };
    let asked = async {
        let client = match client {
            Some(client) => client,
            None => client.insert(connect(&cluster).await?),
        };
        let waited_ms = || began.elapsed().as_millis() as u64;
        let asked_ms = waited_ms();
        let reports = client.survey().await?;
        let open = waiting.open(asked_ms, waited_ms(), &reports);
        if waiting.tells_to_compare(waited_ms()) {
            // Whoever does not hear it is told again later.
            sync::tell(&client.topology(), Control::SyncNow, LOOK_WITHIN).await;
        }
        Ok::<_, Failure>(open)
    };
    match asked.await {
        Ok(open) => Seen::Open(open),
        Err(failure) => Seen::Nobody(Box::new(failure)),
    }
}

fn tell(form: Form, took: Duration, seen: Seen, done: bool) -> Ending {
    let open = match seen {
        Seen::Nobody(failure) => return Err(*failure),
        Seen::Open(open) => open,
    };
    let lines = match done {
        true => format!("done after {:.1} s\n", took.as_secs_f64()),
        false => {
            let lines: String = open.iter().map(|open| format!("  {open}\n")).collect();
            let (count, seconds) = (counted(open.len(), "thing"), took.as_secs_f64());
            format!("{count} still open after {seconds:.1} s:\n{lines}")
        }
    };
    form.answer(&lines, || {
        let row = |open: &Open| json!({ "node": open.node, "what": open.what });
        json!({
            "done": done,
            "waited_ms": took.as_millis() as u64,
            "open": open.iter().map(row).collect::<Vec<_>>(),
        })
    })?;
    Ok(if done { Exit::Done } else { Exit::Unavailable })
}

/// One line that changes, where a person looks.
fn progress(waited: Duration, seen: &Seen) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let line = format!("{:>4} s  {}", waited.as_secs(), seen.in_short());
        let line: String = line.chars().take(79).collect();
        let _ = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
    }
}

fn clear_progress() {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
    }
}
