//! Rounds of a random test, each with a seed of its own that a failure prints.

use std::{env, mem, str::FromStr};

use fastrand::Rng;

/// Runs `rounds` rounds, by default with the same seeds each time, so that a change is judged by what it
/// changes. The variables `PROGLOG_{name}_SEED` and `PROGLOG_{name}_ROUNDS` say the first seed and how many
/// there are: a long run takes new ones.
///
/// # Panics
///
/// A round does, or a variable is no number.
pub fn for_each(name: &str, rounds: u64, round: impl Fn(&mut Rng)) {
    let first = variable(name, "SEED").unwrap_or(0);
    for seed in first..first + variable(name, "ROUNDS").unwrap_or(rounds) {
        let failed = Replay { name, seed };
        round(&mut Rng::with_seed(seed));
        mem::forget(failed);
    }
}

/// The number in a variable of the environment, if it is set.
///
/// # Panics
///
/// It is no number.
#[must_use]
pub fn variable<T: FromStr>(name: &str, what: &str) -> Option<T> {
    let name = format!("PROGLOG_{name}_{what}");
    let text = env::var(&name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")),
    )
}

/// The seed in the variable `PROGLOG_{name}_SEED`, or one that is new each time: for a test whose random moments are
/// never the same twice anyway.
///
/// # Panics
///
/// It is no number.
#[must_use]
pub fn first_or_new(name: &str) -> u64 {
    variable(name, "SEED").unwrap_or_else(|| fastrand::u64(..1 << 40))
}

/// Says how to run a round again, when that round panics.
struct Replay<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        let Self { name, seed } = self;
        eprintln!("run it again with PROGLOG_{name}_SEED={seed} PROGLOG_{name}_ROUNDS=1");
    }
}
