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
//! Zipfian after Gray and others, "Quickly generating billion-record synthetic databases" (SIGMOD
//! 1994), figure 2, with the constant 0.99 of YCSB (Cooper and others, SoCC 2010). The most popular
//! two ranks have exactly their share, the others nearly: the generator rounds a power law.

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

/// Draws ranks, 0 the most popular, with a frequency proportional to 1/(rank+1)^0.99.
#[derive(Clone, Debug)]
pub struct Zipfian {
    ranks: f64,
    zeta: f64,
    eta: f64,
    alpha: f64,
    /// Below this product of a draw and `zeta` lies the second rank.
    second: f64,
}

impl Zipfian {
    /// Over so many ranks, at least one.
    #[must_use]
    pub fn new(ranks: u64) -> Self {
        let ranks = ranks.max(1);
        let zeta = zeta(ranks);
        let n = ranks as f64;
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - self::zeta(2) / zeta);
        Self { ranks: n, zeta, eta, alpha: 1.0 / (1.0 - THETA), second: 1.0 + 0.5_f64.powf(THETA) }
    }

    /// A rank.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let u = unit(random);
        let scaled = u * self.zeta;
        if scaled < 1.0 || self.ranks < 2.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let rank = self.ranks * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        rank.min(self.ranks - 1.0) as u64
    }

    /// The share of the requests that a rank should get.
    #[must_use]
    pub fn share(&self, rank: u64) -> f64 {
        ((rank + 1) as f64).powf(-THETA) / self.zeta
    }
}

/// The sum of i^-0.99 for i from 1 to `n`: the first terms one by one, the others by the formula of
/// Euler and Maclaurin, whose error is below 1e-18 here.
fn zeta(n: u64) -> f64 {
    let term = |i: f64| i.powf(-THETA);
    let summed = n.min(SUMMED_TERMS);
    let head: f64 = (1..=summed).map(|i| term(i as f64)).sum();
    if summed == n {
        return head;
    }
    let (from, to) = (summed as f64, n as f64);
    let integral = (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA);
    let slope = |i: f64| -THETA * i.powf(-THETA - 1.0);
    head + integral + (term(to) - term(from)) / 2.0 + (slope(to) - slope(from)) / 12.0
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
        let (zipfian, draws) = (Zipfian::new(1000), 1_000_000_u32);
        let mut random = Random::new(1);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..draws {
            counts[zipfian.draw(&mut random) as usize] += 1;
        }
        let share = |ranks: std::ops::Range<usize>| {
            f64::from(counts[ranks].iter().sum::<u32>()) / f64::from(draws)
        };
        let law = |ranks: std::ops::Range<usize>| -> f64 {
            ranks.map(|rank| zipfian.share(rank as u64)).sum()
        };
        // The first two are exact: within five standard deviations of a binomial.
        for rank in 0..2 {
            let expected = law(rank..rank + 1);
            let deviation = (expected * (1.0 - expected) / f64::from(draws)).sqrt();
            assert!((share(rank..rank + 1) - expected).abs() < 5.0 * deviation, "{rank}");
        }
        // The others follow the law in bands, as closely as Gray's approximation does.
        for band in [2..10, 10..100, 100..1000] {
            let (is, expected) = (share(band.clone()), law(band.clone()));
            assert!((is / expected - 1.0).abs() < 0.06, "{band:?}: {is} for {expected}");
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
