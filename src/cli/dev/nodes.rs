//! One node of a development cluster, from its start to its end.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::output;
use super::plan::NodePlan;

/// Time a node has to finish what is under way, from SIGTERM to SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause before a node is started again; doubles up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause before a node is started again.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A node that has lived so long is started again with the first pause.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Colours that can be told apart on dark and light grounds.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// Whether the nodes are to stop, and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// They are to run.
    No,
    /// They may finish what is under way.
    Gently,
    /// At once.
    Now,
}

impl Stop {
    /// What one more signal makes of it.
    pub(super) fn harder(self) -> Self {
        match self {
            Self::No => Self::Gently,
            Self::Gently | Self::Now => Self::Now,
        }
    }
}

/// Runs a node until it ends by itself, or, with `respawn`, until it is told to stop.
pub(super) async fn keep(plan: NodePlan, respawn: bool, mut stop: watch::Receiver<Stop>) {
    let mut pause = PAUSE_FIRST;
    while *stop.borrow() == Stop::No {
        let started = Instant::now();
        match start(&plan) {
            Ok((mut child, logs)) => {
                let ended = watch_over(&plan, &mut child, &mut stop).await;
                // All it has said comes before what is said of it.
                for log in logs {
                    let _ = log.await;
                }
                say(&plan, &ended);
            }
            Err(error) => say(&plan, &format!("cannot be started: {error}")),
        }
        if !respawn || *stop.borrow() != Stop::No {
            return;
        }
        if started.elapsed() >= HEALTHY_AFTER {
            pause = PAUSE_FIRST;
        }
        say(&plan, &format!("is started again in {pause:?}"));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => {}
        }
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

fn start(plan: &NodePlan) -> std::io::Result<(Child, [JoinHandle<()>; 2])> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--config"])
        .arg(&plan.file)
        .args(plan.fault_injection.then_some("--fault-injection"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C at the terminal is for the parent, which then tells each node once.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take().expect("standard output is piped");
    let err = child.stderr.take().expect("standard error is piped");
    let prefix = prefix_of(plan);
    Ok((child, [tokio::spawn(copy(prefix.clone(), out)), tokio::spawn(copy(prefix, err))]))
}

/// Waits for the end of the node, and brings it about when that is asked for. Returns what to
/// say of it.
async fn watch_over(
    plan: &NodePlan,
    child: &mut Child,
    stop: &mut watch::Receiver<Stop>,
) -> String {
    tokio::select! {
        status = child.wait() => return match status {
            Ok(status) => format!("ended by itself: {status}{}", start_line(plan)),
            Err(error) => format!("was lost: {error}"),
        },
        _ = stop.wait_for(|stop| *stop != Stop::No) => {}
    }
    // Not reaped yet, so the number still is this child's.
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        let _ = kill_process(id, Signal::TERM);
    }
    let gentle = async {
        tokio::select! {
            status = child.wait() => Some(status),
            _ = stop.wait_for(|stop| *stop == Stop::Now) => None,
        }
    };
    match timeout(PATIENCE, gentle).await {
        Ok(Some(Ok(status))) => format!("stopped: {status}"),
        Ok(Some(Err(error))) => format!("was lost: {error}"),
        Ok(None) | Err(_) => match child.kill().await {
            Ok(()) => "was killed".to_owned(),
            Err(error) => format!("cannot be killed: {error}"),
        },
    }
}

fn start_line(plan: &NodePlan) -> String {
    format!("; by hand: ringdove {}", plan.words())
}

/// Copies lines, each with the node's name before it.
async fn copy(prefix: String, from: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(from);
    let mut line = prefix.clone().into_bytes();
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // The node goes on when nobody reads its log.
        let _ = output::print(&line);
        line.truncate(prefix.len());
    }
}

fn say(plan: &NodePlan, what: &str) {
    let _ = output::print(format!("{}{what}\n", prefix_of(plan)).as_bytes());
}

fn prefix_of(plan: &NodePlan) -> String {
    let name = &plan.name;
    if !output::is_terminal() {
        return format!("{name} | ");
    }
    let number = name.rsplit_once('-').and_then(|(_, number)| number.parse::<usize>().ok());
    let colour = COLOURS[number.unwrap_or(0) % COLOURS.len()];
    format!("\u{1b}[{colour}m{name} |\u{1b}[0m ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_is_harder_than_the_first() {
        assert_eq!(Stop::No.harder(), Stop::Gently);
        assert_eq!(Stop::Gently.harder(), Stop::Now);
        assert_eq!(Stop::Now.harder(), Stop::Now);
    }
}
