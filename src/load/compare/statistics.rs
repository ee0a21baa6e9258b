//! Intervals in which a ratio lies in 99 of 100 cases.

/// Student's t for 99 in 100, two-sided, by degrees of freedom from 1.
const STUDENT: [f64; 30] = [
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012,
    2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779,
    2.771, 2.763, 2.756, 2.750,
];
/// And for more.
const NORMAL: f64 = 2.576;
/// What is left out at each end of sorted draws: half of one in a hundred.
const TAIL: f64 = 0.005;

/// Of the mean of logarithms of ratios; at least two of them.
pub(super) fn interval_of_pairs(logs: &[f64]) -> Option<(f64, f64)> {
    let count = logs.len() as f64;
    if logs.len() < 2 || logs.iter().any(|log| !log.is_finite()) {
        return None;
    }
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let t = STUDENT.get(logs.len() - 2).copied().unwrap_or(NORMAL);
    let reach = t * (variance / count).sqrt();
    Some(((mean - reach).exp(), (mean + reach).exp()))
}

/// Of ratios that were drawn.
pub(super) fn interval_of_draws(mut ratios: Vec<f64>) -> Option<(f64, f64)> {
    if ratios.is_empty() || ratios.iter().any(|ratio| !ratio.is_finite()) {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len() - 1;
    let skipped = (last as f64 * TAIL) as usize;
    Some((ratios[skipped], ratios[last - skipped]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_of_pairs_agrees_with_a_table() {
        // Mean 0.1, standard deviation 0.02, four pairs: 0.1 ± 5.841 · 0.02 / 2.
        let deviation = 0.02 * (3.0_f64 / 4.0).sqrt();
        let logs = [0.1 - deviation, 0.1 - deviation, 0.1 + deviation, 0.1 + deviation];
        let (least, most) = interval_of_pairs(&logs).unwrap();
        assert!((least.ln() - (0.1 - 0.05841)).abs() < 1e-9, "{}", least.ln());
        assert!((most.ln() - (0.1 + 0.05841)).abs() < 1e-9, "{}", most.ln());
        assert_eq!(interval_of_pairs(&[0.1]), None);
    }

    #[test]
    fn an_interval_of_draws_leaves_out_half_a_percent_at_each_end() {
        let ratios = (0..=1000).map(f64::from).collect();
        assert_eq!(interval_of_draws(ratios), Some((5.0, 995.0)));
        assert_eq!(interval_of_draws(vec![1.0, f64::NAN]), None);
    }
}
