//! `dev`: a cluster on one machine, each node a process of its own.
//!
//! ```text
//!   ringdove dev ──┬── ringdove serve --config DIR/node-0/ringdove.toml
//!                  ├── ringdove serve --config DIR/node-1/ringdove.toml
//!                  └── ringdove serve --config DIR/node-2/ringdove.toml
//! ```
//!
//! The nodes are the very processes that an operator runs: they can be killed and started again
//! by hand, and know nothing of their parent. It prepares their files ([`plan`]), keeps them
//! ([`nodes`]), says when all of them answer, and takes them along when it is stopped.

mod nodes;
mod plan;

use std::fmt::Write as _;
use std::future::pending;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::args::Dev;
use super::exit::{Ending, Exit, Failure};
use super::output;
use crate::client::direct;
use crate::wire::messages::PeerStatus;
use nodes::Stop;
use plan::NodePlan;

/// Time between two looks whether the nodes are ready.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time after which it is said which nodes are not.
const IMPATIENT_AFTER: Duration = Duration::from_secs(20);

/// Runs the cluster until it is told to stop, or until there is none left.
pub(super) async fn run(dev: &Dev) -> Ending {
    let plans = plan::prepare(dev)?;
    plan::check_ports(&plans)?;
    let mut signals = Signals::new()?;
    let (stop, stopping) = watch::channel(Stop::No);
    let mut running = JoinSet::new();
    for plan in &plans {
        running.spawn(nodes::keep(plan.clone(), dev.respawn, stopping.clone()));
    }
    let announced = tokio::spawn(announce(plans, dev.dir.display().to_string()));
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => output::note(&format!("dev: {error}")),
                None => break,
            },
            () = signals.next() => {
                announced.abort();
                stop.send_modify(|stop| *stop = stop.harder());
                output::note(match *stop.borrow() {
                    Stop::Now => "dev: killing the nodes",
                    _ => "dev: stopping the nodes; once more kills them",
                });
            }
        }
    }
    announced.abort();
    if *stop.borrow() != Stop::No {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::No, "stopped", "all nodes have stopped by themselves")
        .hint("their last lines above say why"))
}

/// What asks this process to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed; absent when `nohup` has had it ignored.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::No, "system", format!("cannot listen for signals: {error}"))
            })
        };
        let hangup = if ignores_hangup() { None } else { Some(listen(SignalKind::hangup())?) };
        let interrupt = listen(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: listen(SignalKind::terminate())?, hangup })
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether whoever started this process had it ignore SIGHUP. Listening would undo that.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|m| m & 1 == 1)
}

/// Waits until all nodes serve, and says what to do with them.
async fn announce(plans: Vec<NodePlan>, dir: String) {
    let started = tokio::time::Instant::now();
    let mut has_complained = false;
    loop {
        let waiting = not_ready(&plans).await;
        if waiting.is_empty() {
            let _ = output::print(welcome(&plans, &dir).as_bytes());
            return;
        }
        if started.elapsed() > IMPATIENT_AFTER && !has_complained {
            has_complained = true;
            output::note(&format!("dev: still waiting for {}", waiting.join(", ")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The nodes that do not serve yet, or have not met all the others, and what they say.
async fn not_ready(plans: &[NodePlan]) -> Vec<String> {
    let mut waiting = Vec::new();
    for plan in plans {
        let Ok(status) = direct::status(plan.config.advertised(), Duration::from_secs(1)).await
        else {
            waiting.push(plan.name.clone());
            continue;
        };
        // Members that were started elsewhere may be away.
        let is_awaited = |name: &str| plans.iter().any(|plan| plan.name == name);
        let is_apart = |peer: &&PeerStatus| !peer.up && is_awaited(&peer.name);
        // A disk that is nearly full is no reason to wait.
        if !["serving", "read-only"].contains(&status.state.as_str()) {
            waiting.push(format!("{} ({})", plan.name, status.state));
        } else if let Some(peer) = status.peers.iter().find(is_apart) {
            waiting.push(format!("{} (has no connection to {})", plan.name, peer.name));
        }
    }
    waiting
}

fn welcome(plans: &[NodePlan], dir: &str) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "ringdove".to_owned());
    let mut text = format!("\n{} nodes are up, with their data in {dir}\n\n", plans.len());
    for NodePlan { name, config, .. } in plans {
        let listen = &config.listen;
        let _ = write!(text, "  {name:<8} frames {}", listen.address);
        if !listen.text.is_empty() {
            let _ = write!(text, "   text {}", listen.text);
        }
        if !listen.admin.is_empty() {
            let _ = write!(text, "   http://{}/", listen.admin);
        }
        text.push('\n');
    }
    let (Some(first), Some(last)) = (plans.first(), plans.last()) else { return text };
    let (write_to, read_from) = (first.config.advertised(), last.config.advertised());
    let _ = write!(
        text,
        "\nIn another terminal:\n  \
         {program} put --addr {write_to} greeting hello\n  \
         {program} get --addr {read_from} greeting\n  \
         {program} status --addr {write_to}\n  \
         {program} shell --addr {write_to}\n"
    );
    if let Some((host, port)) = first.config.listen.text.rsplit_once(':') {
        let _ = writeln!(text, "  telnet {host} {port}        redis-cli -p {port}");
    }
    let _ = write!(
        text,
        "Kill a node, and start it again:\n  \
         kill -9 $(cat {}/pid)\n  \
         {program} {}\n\
         Ctrl-C stops all of them; the data stays.\n\n",
        last.config.node.data_dir.display(),
        last.words(),
    );
    text
}
