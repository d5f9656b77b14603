//! Whether a goal is met.

use crate::{
    rows::{Check, Goal},
    runner::Outcome,
    stats::Spread,
};

/// A goal beside what was measured.
pub struct Verdict {
    /// The ratio that decides, or the number; none where a side has no number.
    pub spread: Option<Spread>,
    /// To whom the ratio is.
    pub to: Option<&'static str>,
    pub met: Option<bool>,
}

pub fn judge(goal: &Goal, outcome: &Outcome, all: &[Outcome]) -> Verdict {
    match &goal.check {
        Check::Ratio {
            own,
            factor,
            others,
        } => {
            let mut worst: Option<(Spread, &'static str)> = None;
            for other in others {
                let row = match other.row {
                    Some(id) => all.iter().find(|outcome| outcome.row.id == id),
                    None => Some(outcome),
                };
                let Some(theirs) = row.and_then(|row| row.of(other.name)) else {
                    continue;
                };
                let Some(ours) = outcome.of(own) else {
                    continue;
                };
                let ratio = if outcome.row.unit.more_is_better() {
                    let scaled: Vec<f64> = theirs.iter().map(|n| n * other.scale).collect();
                    Spread::of_ratio(ours, &scaled)
                } else {
                    Spread::of_ratio(theirs, ours)
                };
                let Some(ratio) = ratio else { continue };
                if worst.is_none_or(|(spread, _)| ratio.median < spread.median) {
                    worst = Some((ratio, other.name));
                }
            }
            Verdict {
                spread: worst.map(|(spread, _)| spread),
                to: worst.map(|(_, name)| name),
                met: worst.map(|(spread, _)| spread.median >= *factor),
            }
        }
        Check::Slowdown { own, factor, other } => {
            let (ours, theirs) = (outcome.of(own), outcome.of(other));
            let spread = match (ours, theirs, outcome.row.unit.more_is_better()) {
                (Some(ours), Some(theirs), true) => Spread::of_ratio(theirs, ours),
                (Some(ours), Some(theirs), false) => Spread::of_ratio(ours, theirs),
                _ => None,
            };
            Verdict {
                spread,
                to: Some(other),
                met: spread.map(|spread| spread.median <= *factor),
            }
        }
        Check::Limit { own, most } => {
            let spread = outcome.of(own).and_then(Spread::of);
            Verdict {
                spread,
                to: None,
                met: spread.map(|spread| spread.median <= *most),
            }
        }
    }
}
