//! Every vector on every subject.

use std::process::ExitCode;

use proglog_tests::{
    script,
    trials::{self, Case},
    vector::Vector,
};

fn main() -> ExitCode {
    let cases = Vector::all()
        .into_iter()
        .map(|(name, vector)| Case::new(name, move |subject| script::run(&vector, subject)));
    trials::main(cases.collect())
}
