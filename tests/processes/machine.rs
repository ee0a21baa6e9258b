//! What the machine does meanwhile that no node can help: processors that others on the same host have,
//! and a disk that stands still. Where either is not close to nothing, figures are of the neighbours too.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A disk that has had something to do for so long and has finished nothing stands still.
const STILL: Duration = Duration::from_millis(30);
/// The pieces of time that are told apart.
const SPAN: Duration = Duration::from_secs(5);
/// More than this of a span, in percent, is a disturbance.
const DISTURBS: f64 = 1.0;

/// The machine, watched for as long as this lives.
pub struct Machine {
    spans: Arc<Mutex<Vec<Span>>>,
}

#[derive(Clone, Copy)]
struct Span {
    from: Instant,
    until: Instant,
    lost: Lost,
}

/// Parts of a time, in percent.
#[derive(Clone, Copy, Default)]
pub struct Lost {
    /// Of the processors' time: what others were given of it although this machine had use for it.
    pub stolen: f64,
    /// Of the time: how much of it the disk stood still.
    pub still: f64,
}

impl Machine {
    pub fn watch() -> Self {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::downgrade(&spans);
        thread::spawn(move || {
            let mut watch = Watch { disk: disk(), still_since: None };
            while let Some(spans) = seen.upgrade() {
                let span = watch.span();
                spans.lock().unwrap().push(span);
            }
        });
        Self { spans }
    }

    /// What was lost of a time, as far as whole spans of it tell.
    pub fn lost(&self, from: Instant, until: Instant) -> Lost {
        let spans = self.spans_of(from, until);
        let mean = |part: fn(&Lost) -> f64| {
            spans.iter().fold(0.0, |sum, span| sum + part(&span.lost)) / spans.len().max(1) as f64
        };
        Lost { stolen: mean(|lost| lost.stolen), still: mean(|lost| lost.still) }
    }

    /// The spans of a time in which nothing got in the way, and which part of all that is, in percent.
    pub fn undisturbed(&self, from: Instant, until: Instant) -> (Vec<(Instant, Instant)>, f64) {
        let spans = self.spans_of(from, until);
        let is_quiet = |span: &&Span| span.lost.stolen <= DISTURBS && span.lost.still <= DISTURBS;
        let quiet: Vec<_> =
            spans.iter().filter(is_quiet).map(|span| (span.from, span.until)).collect();
        let part = 100.0 * quiet.len() as f64 / spans.len().max(1) as f64;
        (quiet, part)
    }

    fn spans_of(&self, from: Instant, until: Instant) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.from >= from && span.until <= until).copied().collect()
    }
}

/// What the thread that looks has seen last.
struct Watch {
    disk: Option<Disk>,
    still_since: Option<Instant>,
}

impl Watch {
    /// Looks on for a span.
    fn span(&mut self) -> Span {
        let (from, (stolen, all)) = (Instant::now(), ticks());
        let mut still = Duration::ZERO;
        while from.elapsed() < SPAN {
            still += self.look();
        }
        let (until, (stolen_now, all_now)) = (Instant::now(), ticks());
        let stolen = (stolen_now - stolen) as f64 / ((all_now - all) as f64).max(1.0);
        let still = still.as_secs_f64() / (until - from).as_secs_f64();
        Span { from, until, lost: Lost { stolen: 100.0 * stolen, still: 100.0 * still } }
    }

    /// How long the disk has stood still, if it has just gone on.
    fn look(&mut self) -> Duration {
        let looked = Instant::now();
        thread::sleep(LOOK_EVERY);
        let before = std::mem::replace(&mut self.disk, disk());
        let (Some(before), Some(now)) = (before, self.disk) else { return Duration::ZERO };
        if now.under_way > 0 && now.finished == before.finished {
            self.still_since.get_or_insert(looked);
            return Duration::ZERO;
        }
        let still = self.still_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if still < STILL { Duration::ZERO } else { still }
    }
}

#[derive(Clone, Copy)]
struct Disk {
    finished: u64,
    under_way: u64,
}

/// The device below the nodes' directories; none where they are in memory.
fn disk() -> Option<Disk> {
    let device = fs::metadata(env::temp_dir()).ok()?.dev();
    let (major, minor) =
        (rustix::fs::major(device).to_string(), rustix::fs::minor(device).to_string());
    let disks = fs::read_to_string("/proc/diskstats").ok()?;
    let mut lines = disks.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let fields = lines.find(|fields| fields[0] == major && fields[1] == minor)?;
    let field =
        |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // Reads, writes, discards and flushes that are done (the kernel's documentation of iostats).
    Some(Disk { finished: [3, 7, 14, 18].map(field).iter().sum(), under_way: field(11) })
}

/// Processor time that others on the same host were given instead of this machine, and all there was.
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let all = stat.lines().next().unwrap().split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = all.map(|ticks| ticks.parse().unwrap()).collect();
    (ticks[7], ticks.iter().sum())
}
