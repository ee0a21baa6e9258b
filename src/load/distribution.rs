//! Which keys are asked for: YCSB's distributions, none of which needs a table, so a billion keys
//! cost no more memory than ten.
//!
//! ```text
//!   zipfian    a few keys take most of the requests; spread over the key space by a hash
//!   latest     the same, counted back from the key that was inserted last
//!   hotspot    one fifth of the keys takes four fifths of the requests
//!   uniform    every key alike
//! ```
//!
//! The law is that of YCSB (Cooper and others, SoCC 2010): a share of rank^-0.99, over ten billion
//! ranks that a hash spreads over the keys. YCSB draws by the formula of Gray and others ("Quickly
//! generating billion-record synthetic databases", SIGMOD 1994, figure 2), which gives the third
//! rank a fifth more than its share. Here ranks are drawn by rejection-inversion (Hörmann and
//! Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
//! 1996): exact for every rank, and it needs no sum over all ranks either.

use std::str::FromStr;

use super::Error;
use crate::random::Random;

/// How steep the popularity falls: YCSB's.
const THETA: f64 = 0.99;
/// Over how many ranks the scrambled zipfian draws before it hashes: YCSB's ten billion. So the
/// share of the hottest key does not depend on how many keys there are.
const SCRAMBLED_RANKS: u64 = 10_000_000_000;
/// Terms of the zeta function that are summed one by one; the rest is an integral.
const SUMMED_TERMS: u64 = 10_000;
/// The hot set, in percent of the keys, and what it gets, in percent of the requests.
const HOT_KEYS_PERCENT: u64 = 20;
const HOT_REQUESTS_PERCENT: u64 = 80;

/// A law by which keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// A few keys take most of the requests.
    Zipfian,
    /// Every key alike.
    Uniform,
    /// The keys inserted last take most of the requests.
    Latest,
    /// A fifth of the keys takes four fifths of the requests.
    Hotspot,
}

impl Distribution {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zipfian => "zipfian",
            Self::Uniform => "uniform",
            Self::Latest => "latest",
            Self::Hotspot => "hotspot",
        }
    }
}

impl FromStr for Distribution {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Zipfian, Self::Uniform, Self::Latest, Self::Hotspot];
        let found = all.into_iter().find(|distribution| distribution.name() == text);
        found.ok_or_else(|| {
            Error::settings(format!(
                "{text:?} is no distribution: write zipfian, uniform, latest or hotspot"
            ))
        })
    }
}

/// Draws ranks, 0 the most popular, with a frequency proportional to (rank+1)^-0.99.
///
/// How it works: the area under x^-0.99 from 0.5 to ranks+0.5 is cut into columns around 1, 2, 3 …,
/// a point of the area is drawn by inverting its integral, and is taken if it lies in the part of
/// its column that is as large as the rank's share; nearly always it does.
#[derive(Clone, Debug)]
pub struct Zipfian {
    ranks: f64,
    /// The integral at the left end, where the first column is cut to its share.
    left: f64,
    /// The integral at the right end.
    right: f64,
    /// A point this near to the right of its column's middle is always taken.
    near: f64,
}

impl Zipfian {
    /// Over so many ranks, at least one.
    #[must_use]
    pub fn new(ranks: u64) -> Self {
        let ranks = ranks.max(1) as f64;
        let near = 2.0 - inverse(integral(2.5) - weight(2.0));
        Self { ranks, left: integral(1.5) - 1.0, right: integral(ranks + 0.5), near }
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.right + unit(random) * (self.left - self.right);
            let x = inverse(area);
            let column = x.round().clamp(1.0, self.ranks);
            if column - x <= self.near || area >= integral(column + 0.5) - weight(column) {
                return column as u64 - 1;
            }
        }
    }

    /// The share of the requests that a rank gets.
    #[must_use]
    pub fn share(&self, rank: u64) -> f64 {
        weight((rank + 1) as f64) / zeta(self.ranks as u64)
    }
}

fn weight(x: f64) -> f64 {
    x.powf(-THETA)
}

/// Of [`weight`], from 1 on.
fn integral(x: f64) -> f64 {
    (x.powf(1.0 - THETA) - 1.0) / (1.0 - THETA)
}

/// Of [`integral`].
fn inverse(area: f64) -> f64 {
    (1.0 + area * (1.0 - THETA)).powf(1.0 / (1.0 - THETA))
}

/// The sum of i^-0.99 for i from 1 to `n`: the first terms one by one, the others by the formula of
/// Euler and Maclaurin, whose error is below 1e-18 here.
fn zeta(n: u64) -> f64 {
    let summed = n.min(SUMMED_TERMS);
    let head: f64 = (1..=summed).map(|i| weight(i as f64)).sum();
    if summed == n {
        return head;
    }
    let (from, to) = (summed as f64, n as f64);
    let slope = |i: f64| -THETA * i.powf(-THETA - 1.0);
    let ends = (weight(to) - weight(from)) / 2.0 + (slope(to) - slope(from)) / 12.0;
    head + integral(to) - integral(from) + ends
}

/// At least 0 and below 1.
fn unit(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Spreads ranks over the keys: FNV-1a over the eight bytes of the rank, as YCSB does.
fn scramble(rank: u64) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    rank.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Draws keys by one of the laws.
#[derive(Clone, Debug)]
pub struct KeyChooser {
    distribution: Distribution,
    /// Keys that there were at the beginning, at least one.
    keys: u64,
    zipfian: Zipfian,
}

impl KeyChooser {
    /// For so many keys, at least one.
    #[must_use]
    pub fn new(distribution: Distribution, keys: u64) -> Self {
        let keys = keys.max(1);
        let ranks = if distribution == Distribution::Latest { keys } else { SCRAMBLED_RANKS };
        Self { distribution, keys, zipfian: Zipfian::new(ranks) }
    }

    /// A key, of `present` ones; those behind the first `keys` were inserted meanwhile. Only the
    /// latest and the uniform law reach these.
    pub fn draw(&self, random: &mut Random, present: u64) -> u64 {
        match self.distribution {
            Distribution::Zipfian => scramble(self.zipfian.draw(random)) % self.keys,
            Distribution::Uniform => random.below(present),
            Distribution::Latest => present - 1 - self.zipfian.draw(random),
            Distribution::Hotspot => {
                let hot = (self.keys * HOT_KEYS_PERCENT / 100).max(1);
                let cold = self.keys - hot;
                if cold == 0 || random.chance(HOT_REQUESTS_PERCENT) {
                    random.below(hot)
                } else {
                    hot + random.below(cold)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeta_agrees_with_the_sum_and_with_the_constant_that_ycsb_ships() {
        let summed: f64 = (1..=1_000_000_u64).map(|i| (i as f64).powf(-THETA)).sum();
        assert!((zeta(1_000_000) - summed).abs() < 1e-9, "{} {summed}", zeta(1_000_000));
        // ScrambledZipfianGenerator.ZETAN: for ten billion, as its authors summed it.
        assert!((zeta(SCRAMBLED_RANKS) - 26.469_028_201_783_02).abs() < 1e-6);
    }

    #[test]
    fn ranks_come_as_often_as_zipfs_law_says() {
        let (ranks, draws) = (1000, 1_000_000_u32);
        let zipfian = Zipfian::new(ranks);
        let mut random = Random::new(1);
        let mut counts = vec![0_u32; ranks as usize];
        for _ in 0..draws {
            counts[zipfian.draw(&mut random) as usize] += 1;
        }
        let law: Vec<f64> = (0..ranks).map(|rank| zipfian.share(rank)).collect();
        assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // Pearson's sum of squared deviations: with 999 degrees of freedom above 1,143 once in a
        // thousand seeds.
        let off = counts.iter().zip(&law).map(|(count, share)| {
            let expected = share * f64::from(draws);
            (f64::from(*count) - expected).powi(2) / expected
        });
        let off: f64 = off.sum();
        assert!(off < 1143.0, "{off}");
    }

    #[test]
    fn of_ten_billion_ranks_the_first_come_as_often_as_they_should() {
        let (zipfian, draws) = (Zipfian::new(SCRAMBLED_RANKS), 1_000_000_u32);
        let mut random = Random::new(4);
        let mut counts = [0_u32; 4];
        for _ in 0..draws {
            if let Some(count) = counts.get_mut(zipfian.draw(&mut random) as usize) {
                *count += 1;
            }
        }
        for (rank, count) in counts.into_iter().enumerate() {
            let (share, draws) = (zipfian.share(rank as u64), f64::from(draws));
            let deviation = (draws * share * (1.0 - share)).sqrt();
            assert!((f64::from(count) - draws * share).abs() < 4.0 * deviation, "{rank}: {count}");
        }
    }

    #[test]
    fn every_law_stays_within_its_keys() {
        let mut random = Random::new(2);
        for name in ["zipfian", "uniform", "latest", "hotspot"] {
            for keys in [1, 2, 3, 1000, 1_000_000_000] {
                let chooser = KeyChooser::new(name.parse().unwrap(), keys);
                for _ in 0..1000 {
                    assert!(chooser.draw(&mut random, keys + 5) < keys + 5, "{name} {keys}");
                }
            }
        }
    }

    #[test]
    fn the_hot_spot_and_the_latest_get_what_they_should() {
        let mut random = Random::new(3);
        let hotspot = KeyChooser::new(Distribution::Hotspot, 1000);
        let hot = (0..100_000).filter(|_| hotspot.draw(&mut random, 1000) < 200).count();
        assert!((79_000..81_000).contains(&hot), "{hot}");
        let latest = KeyChooser::new(Distribution::Latest, 1000);
        let newest = (0..100_000).filter(|_| latest.draw(&mut random, 1500) == 1499).count();
        let expected = Zipfian::new(1000).share(0) * 100_000.0;
        assert!((newest as f64 / expected - 1.0).abs() < 0.05, "{newest} for {expected}");
    }
}
