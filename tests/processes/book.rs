//! A steady rate of requests of numbered values, and what must be read of each key.
//!
//! Requests are sent when they are due, whatever became of those before, so that a stall is seen by
//! all that come while it lasts. Each key has one writer at a time, which numbers its values. So for
//! each read it is known which number it must find at least, and for each number what the value is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringdove::client::{Bucket, Error};
use ringdove::random::Random;
use tokio::task::{JoinHandle, JoinSet};

use crate::load::{Figures, Ledger};

pub const VALUE_BYTES: usize = 1024;
/// Requests under way at once where there is no rate: when keys are laid down, and checked.
const AT_ONCE: usize = 64;
/// Failures that are printed.
const SHOWN: usize = 5;

/// What became of each key.
pub struct Book {
    keys: Vec<Entry>,
    /// What was read that should not have been.
    wrong: Mutex<Vec<String>>,
    /// How long requests took.
    ledger: Ledger,
    failures: AtomicUsize,
}

#[derive(Default)]
struct Entry {
    /// The highest number that was acknowledged, and that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
    is_written: AtomicBool,
}

/// The value of this number: not to be compressed, and like no other.
fn value(key: usize, number: u64) -> Vec<u8> {
    let mut random = Random::new((key as u64) << 24 ^ number);
    let mut value = number.to_le_bytes().to_vec();
    while value.len() < VALUE_BYTES {
        value.extend(random.next_u64().to_le_bytes());
    }
    value
}

fn number_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

impl Book {
    pub fn new(keys: u64) -> Arc<Self> {
        let keys = (0..keys).map(|_| Entry::default()).collect();
        Arc::new(Self {
            keys,
            wrong: Mutex::default(),
            ledger: Ledger::default(),
            failures: AtomicUsize::new(0),
        })
    }

    /// Prints the first few failures; all are counted.
    fn failed(&self, key: usize, error: &Error) {
        if self.failures.fetch_add(1, Ordering::Relaxed) < SHOWN {
            println!("key-{key}: {error}");
        }
    }

    /// Writes the key's next value, unless somebody else does.
    async fn write(&self, bucket: &Bucket, key: usize, is_first: bool) {
        let entry = &self.keys[key];
        if entry.is_written.swap(true, Ordering::AcqRel) {
            return;
        }
        let number = entry.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let put = bucket.put(format!("key-{key}"), value(key, number));
        let put = if is_first && number == 1 { put.blind() } else { put.observed() };
        let began = Instant::now();
        let answer = put.strict().await;
        if self.ledger.sample(began, true, &answer) {
            entry.acknowledged.store(number, Ordering::Release);
        } else if let Err(error) = answer {
            self.failed(key, &error);
        }
        entry.is_written.store(false, Ordering::Release);
    }

    async fn read(&self, bucket: &Bucket, key: usize) {
        let entry = &self.keys[key];
        let least = entry.acknowledged.load(Ordering::Acquire);
        let began = Instant::now();
        let answer = bucket.get(format!("key-{key}")).strict().await;
        self.ledger.sample(began, false, &answer);
        let read = match answer {
            Ok(read) => read,
            Err(error) => return self.failed(key, &error),
        };
        let values = read.values.as_slice();
        let newest = values.iter().map(|value| number_of(&value.data)).max().unwrap_or(0);
        let is_whole = values.iter().all(|read| value(key, number_of(&read.data)) == read.data);
        if newest < least || newest > entry.sent.load(Ordering::Acquire) || !is_whole {
            let wrong = format!("key-{key}: {newest} of {least}, whole: {is_whole}");
            self.wrong.lock().unwrap().push(wrong);
        }
    }

    /// Writes these keys for the first time, as fast as it goes.
    pub async fn write_all(self: &Arc<Self>, bucket: &Bucket, keys: Range<usize>) {
        self.each(bucket, keys, true).await;
    }

    /// Reads all keys back, and everything else that was read must have been right, too.
    pub async fn check_all(self: &Arc<Self>, bucket: &Bucket) {
        self.each(bucket, 0..self.keys.len(), false).await;
        let wrong = self.wrong.lock().unwrap();
        let shown = &wrong[..wrong.len().min(9)];
        assert!(wrong.is_empty(), "{} were wrong: {shown:#?}", wrong.len());
    }

    /// How requests went, of those that were under way between these times.
    pub fn figures(&self, from: Instant, until: Instant) -> Figures {
        self.ledger.figures(from, until)
    }

    /// The 99th percentile of requests that began in one of these times; none if there were none.
    pub fn p99_of(&self, times: &[(Instant, Instant)]) -> Option<Duration> {
        self.ledger.p99_of(times)
    }

    async fn each(self: &Arc<Self>, bucket: &Bucket, keys: Range<usize>, is_write: bool) {
        let next = Arc::new(AtomicUsize::new(keys.start));
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (book, bucket, next) = (self.clone(), bucket.clone(), next.clone());
            workers.spawn(async move {
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= keys.end {
                        return;
                    }
                    if !is_write {
                        book.read(&bucket, key).await;
                        continue;
                    }
                    // As fast as it goes is too fast at times.
                    while book.keys[key].acknowledged.load(Ordering::Acquire) == 0 {
                        book.write(&bucket, key, true).await;
                    }
                }
            });
        }
        workers.join_all().await;
    }
}

/// Requests at a steady rate, as many reads as writes, of keys all over.
pub struct Steady {
    stop: Arc<AtomicBool>,
    pacer: JoinHandle<()>,
}

impl Steady {
    pub fn start(book: &Arc<Book>, bucket: &Bucket, rate: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (book, bucket, stopped) = (book.clone(), bucket.clone(), stop.clone());
        let pacer = tokio::spawn(async move {
            let (mut random, mut requests) = (Random::new(1), JoinSet::new());
            let (began, mut sent) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = began.elapsed().as_micros() as u64 * rate / 1_000_000;
                for _ in sent..due {
                    let key = random.below(book.keys.len() as u64) as usize;
                    let (book, bucket, is_write) =
                        (book.clone(), bucket.clone(), random.chance(50));
                    requests.spawn(async move {
                        match is_write {
                            true => book.write(&bucket, key, false).await,
                            false => book.read(&bucket, key).await,
                        }
                    });
                }
                sent = due;
                while requests.try_join_next().is_some() {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            requests.join_all().await;
        });
        Self { stop, pacer }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.pacer.await.unwrap();
    }
}
