//! Medians with their range, and ratios within the same round.

/// A median and what it lies between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some(Self {
            median: f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]),
            min: sorted[0],
            max: sorted[last],
        })
    }

    /// Of the ratios of two subjects, each within its round.
    pub fn of_ratio(numbers: &[f64], to: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = numbers.iter().zip(to).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}
