//! One test for each case on each subject, named after both.

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Trial};

use crate::subject::{Kind, SUBJECTS, Subject};

/// A test that runs on every subject.
pub struct Case {
    name: String,
    on_directories: bool,
    body: Body,
}

type Body = Box<dyn Fn(&dyn Subject) + Send + Sync>;

impl Case {
    /// A test of this name. A failure is a panic.
    pub fn new(
        name: impl Into<String>,
        body: impl Fn(&dyn Subject) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            on_directories: false,
            body: Box::new(body),
        }
    }

    /// Only for subjects that live in a directory of the file system.
    #[must_use]
    pub fn only_on_directories(mut self) -> Self {
        self.on_directories = true;
        self
    }

    fn runs_on(&self, kind: &Kind) -> bool {
        !self.on_directories || kind.open_directory().is_some()
    }
}

/// A [`Case`] named as the function is.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { vec![$($crate::trials::Case::new(stringify!($name), $name)),*] };
}

/// Runs every case on every subject it is for, with the command line of `cargo test`.
#[must_use]
pub fn main(cases: Vec<Case>) -> ExitCode {
    let mut trials = Vec::new();
    for case in cases {
        let case = Arc::new(case);
        for kind in SUBJECTS.iter().filter(|kind| case.runs_on(kind)) {
            let (name, case) = (format!("{}::{}", case.name, kind.name), Arc::clone(&case));
            trials.push(Trial::test(name, move || {
                (case.body)(&*kind.subject());
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
