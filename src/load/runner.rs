//! Runs a workload against a target and counts what becomes of it.
//!
//! ```text
//!   open    clock ──▶ everything that is due ──▶ slots ──▶ target        waits for no answer
//!   closed  so many workers, each: next request ──▶ target ──▶ answer ──▶ next request
//! ```
//!
//! An open loop issues once a millisecond whatever has become due. A request that leaves within
//! [`GRACE`] of its time counts as due when it left, two looks at most; one that leaves
//! later, because this process was held up, is timed from when it should have left. When as many
//! requests are under way as may be, those that become due are counted as failed with the name
//! [`NOT_SENT`]: the rate is kept, and nothing slows down in silence.
//!
//! Everything runs on one thread, so nothing is locked. Several processes share a run with
//! [`Part`]s.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_local};

use super::Error;
use super::actor::{Actor, Books, Clock, Manner, micros};
use super::alarm::Alarm;
use super::directory::Directory;
use super::fill::fill;
use super::ledger::{Header, Ledger};
use super::record::{Second, Summary};
use super::schedule::Schedule;
use super::slots::{Handed, Slots};
use super::tally::Tally;
use super::target::{Failure, Session, Target};
use super::workload::{Part, Request, Workload};

/// The name of requests that were due when too many were under way.
pub const NOT_SENT: &str = "not_sent";
/// See the module.
pub const GRACE: Duration = Duration::from_millis(2);
/// The shortest time between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);
/// How often the end of a run looks whether all is answered.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// The end of a run waits for answers for so long beyond the time that a request may take.
const DRAIN_SLACK: Duration = Duration::from_secs(2);
/// A closed loop pauses so long after a request that failed, or it would count how fast a server
/// that is away can be asked.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// How requests follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pacing {
    /// At fixed times.
    Open {
        /// Which.
        schedule: Schedule,
        /// The most requests under way.
        in_flight: usize,
    },
    /// So many workers, each of which sends its next request when the last was answered.
    Closed {
        /// How many.
        workers: usize,
        /// Time before measuring begins.
        warmup: Duration,
        /// Time that is measured.
        measured: Duration,
    },
}

/// A run to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is asked for.
    pub workload: Workload,
    /// The share of this process.
    pub part: Part,
    /// How requests follow each other.
    pub pacing: Pacing,
    /// What writes say that they have seen.
    pub manner: Manner,
    /// Who writes: no other run may have the same.
    pub writer: u64,
    /// Whether to write every key once before the run.
    pub fill: bool,
    /// The longest that a request takes; so long the end of a run waits for answers.
    pub timeout: Duration,
    /// Whether a ledger is kept, and of what: target and bucket.
    pub ledger: Option<(String, String)>,
}

/// How far a run is.
pub struct Progress<'a> {
    /// Time since it began.
    pub elapsed: Duration,
    /// Until its end.
    pub whole: Duration,
    /// The second that has just ended.
    pub second: &'a Second,
    /// Requests under way.
    pub under_way: usize,
}

impl Plan {
    /// Time before measuring begins, and until its end.
    fn spans(&self) -> (Duration, Duration) {
        match self.pacing {
            Pacing::Open { schedule, .. } => (schedule.prelude(), schedule.end()),
            Pacing::Closed { warmup, measured, .. } => (warmup, warmup + measured),
        }
    }
}

/// Runs it. `stop` ends it early; `tell` hears of every second. The summary says nothing yet of
/// label, program and settings, which the caller knows. Must run within a
/// [`LocalSet`](tokio::task::LocalSet).
///
/// # Errors
/// When a file cannot be written. Requests that fail are counted, and are no error.
pub async fn run<T: Target>(
    target: &T,
    plan: &Plan,
    mut directory: Option<&mut Directory>,
    stop: impl Future<Output = ()>,
    tell: impl FnMut(&Progress<'_>),
) -> Result<Summary, Error> {
    let clock = Clock::start();
    let ledger = match (&plan.ledger, &directory) {
        (Some((target, bucket)), Some(directory)) => {
            let header = Header::new(plan.writer, clock.begun_us(), target, bucket);
            Some(Ledger::create(directory.path(), &header)?)
        }
        _ => None,
    };
    let books = Rc::new(Books::new(clock, plan.manner, plan.writer, ledger));
    if plan.fill {
        fill(target, plan, &books).await?;
    }
    let begun_us = clock.begun_us() + clock.elapsed_us();
    if let Some(directory) = &mut directory {
        directory.begin(begun_us)?;
    }
    let run = Run::new(target, plan, books.clone(), begun_us);
    let (summary, is_drained) = run.go(directory, stop, tell).await?;
    let ledger = books.ledger.borrow_mut().take();
    match ledger {
        Some(ledger) if is_drained => ledger.finish()?,
        Some(ledger) => ledger.abandon()?,
        None => {}
    }
    Ok(summary)
}

/// A request that is handed to a slot.
struct Job {
    request: Request,
    due: Instant,
    is_measured: bool,
}

type BooksOf<T> = Books<<<T as Target>::Session as Session>::Context>;

/// A run under way.
struct Run<'a, T: Target> {
    target: &'a T,
    plan: &'a Plan,
    books: Rc<BooksOf<T>>,
    tally: Rc<RefCell<Tally>>,
    slots: Rc<Slots<Job>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    /// No further requests are sent.
    is_over: Rc<Cell<bool>>,
    begun: Instant,
    begun_us: u64,
}

impl<'a, T: Target> Run<'a, T> {
    fn new(target: &'a T, plan: &'a Plan, books: Rc<BooksOf<T>>, begun_us: u64) -> Self {
        let most = match plan.pacing {
            Pacing::Open { in_flight, .. } => in_flight,
            Pacing::Closed { .. } => 0,
        };
        Self {
            target,
            plan,
            books,
            tally: Rc::new(RefCell::new(Tally::new())),
            slots: Rc::new(Slots::new(most)),
            tasks: RefCell::default(),
            is_over: Rc::default(),
            begun: Instant::now(),
            begun_us,
        }
    }

    /// Drives it to its end. True if every request was answered or given up by its session.
    async fn go(
        self,
        mut directory: Option<&mut Directory>,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(&Progress<'_>),
    ) -> Result<(Summary, bool), Error> {
        let work = async {
            tokio::select! {
                () = self.drive() => {}
                () = stop => {}
            }
            let ran = self.begun.elapsed();
            (ran, self.drain().await)
        };
        tokio::pin!(work);
        let mut seconds = 0;
        let (ran, is_drained) = loop {
            let ends = self.begun + SECOND * (seconds + 1);
            tokio::select! {
                ended = &mut work => break ended,
                () = tokio::time::sleep_until(ends.into()) => {
                    self.end_second(seconds, SECOND, &mut directory, &mut tell)?;
                    seconds += 1;
                }
            }
        };
        self.tasks.borrow().iter().for_each(JoinHandle::abort);
        self.tally.borrow_mut().give_up();
        let rest = self.begun.elapsed().saturating_sub(SECOND * seconds);
        if self.tally.borrow().has_news() {
            self.end_second(seconds, rest, &mut directory, &mut tell)?;
        }
        let (prelude, whole) = self.plan.spans();
        let measured = ran.min(whole).saturating_sub(prelude);
        let begun_ms = (self.begun_us + micros(prelude)) / 1000;
        let mut summary = Summary { begun_ms, ..Summary::default() };
        self.tally.borrow().summarize(&mut summary, measured);
        Ok((summary, is_drained))
    }

    fn end_second(
        &self,
        number: u32,
        length: Duration,
        directory: &mut Option<&mut Directory>,
        tell: &mut impl FnMut(&Progress<'_>),
    ) -> Result<(), Error> {
        let since = SECOND * number;
        let at_ms = (self.begun_us + micros(since)) / 1000;
        let mut tally = self.tally.borrow_mut();
        let under_way = tally.under_way();
        tally.end_second(at_ms, |second, latencies| {
            let (elapsed, whole) = (self.begun.elapsed(), self.plan.spans().1);
            tell(&Progress { elapsed, whole, second, under_way });
            match directory {
                Some(directory) => directory.add(second, latencies, since, length),
                None => Ok(()),
            }
        })
    }

    async fn drive(&self) {
        match self.plan.pacing {
            Pacing::Open { schedule, .. } => self.drive_open(&schedule).await,
            Pacing::Closed { workers, .. } => self.drive_closed(workers).await,
        }
    }

    async fn drive_open(&self, schedule: &Schedule) {
        let mut sequence = self.plan.workload.sequence(self.plan.part);
        let (prelude, end) = (schedule.prelude(), schedule.end());
        let alarm = Alarm::new();
        loop {
            let now = Instant::now();
            let next = loop {
                let since = schedule.due(sequence.peek());
                let due = self.begun + since;
                if since >= end || due > now {
                    break since;
                }
                let due = if now - due <= GRACE { now } else { due };
                let job = Job { request: sequence.draw(), due, is_measured: since >= prelude };
                self.issue(job);
            };
            if next >= end {
                return alarm.wait_until(self.begun + end).await;
            }
            let look_at = (self.begun + next).max(now + TICK);
            alarm.wait_until(look_at).await;
        }
    }

    /// Sends a request, or counts that it could not be sent.
    fn issue(&self, job: Job) {
        self.tally.borrow_mut().due(job.request.kind, job.is_measured);
        match self.slots.hand(job) {
            Handed::Over => {}
            Handed::ToNew(slot, job) => {
                slot.give(job);
                let session = self.target.session(self.slots.last_number());
                let mut actor = Actor::new(session, self.books.clone());
                let (tally, slots) = (self.tally.clone(), self.slots.clone());
                self.tasks.borrow_mut().push(spawn_local(async move {
                    loop {
                        let job = slot.job().await;
                        let answer = actor.perform(&job.request).await;
                        let mut tally = tally.borrow_mut();
                        tally.ended(job.request.kind, job.due, job.is_measured, answer);
                        slots.free(&slot);
                    }
                }));
            }
            Handed::Full(job) => {
                let answer = Err(Failure { name: NOT_SENT, is_unknown: false });
                let mut tally = self.tally.borrow_mut();
                tally.ended(job.request.kind, job.due, job.is_measured, answer);
            }
        }
    }

    async fn drive_closed(&self, workers: usize) {
        let sequence = Rc::new(RefCell::new(self.plan.workload.sequence(self.plan.part)));
        let (prelude, whole) = self.plan.spans();
        let (measured_from, end) = (self.begun + prelude, self.begun + whole);
        for number in 0..workers {
            let mut actor = Actor::new(self.target.session(number), self.books.clone());
            let (sequence, tally) = (sequence.clone(), self.tally.clone());
            let is_over = self.is_over.clone();
            let worker = async move {
                loop {
                    let now = Instant::now();
                    if now >= end || is_over.get() {
                        return;
                    }
                    let request = sequence.borrow_mut().draw();
                    let is_measured = now >= measured_from;
                    tally.borrow_mut().due(request.kind, is_measured);
                    let answer = actor.perform(&request).await;
                    tally.borrow_mut().ended(request.kind, now, is_measured, answer);
                    if answer.is_err() {
                        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    }
                }
            };
            self.tasks.borrow_mut().push(spawn_local(worker));
        }
        tokio::time::sleep_until(end.into()).await;
    }

    /// Waits until nothing is under way, as long as a request may take. False if something was.
    async fn drain(&self) -> bool {
        self.is_over.set(true);
        let deadline = Instant::now() + self.plan.timeout + DRAIN_SLACK;
        while self.tally.borrow().under_way() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        true
    }
}
