//! The suites that every implementation of the log must pass, and what they share.
//!
//! One more implementation is one more line in [`subject::SUBJECTS`]; one more script is one more
//! file in `vectors/`.

pub mod damage;
pub mod model;
pub mod program;
pub mod schema;
pub mod script;
pub mod seeds;
pub mod subject;
pub mod trials;
pub mod vector;
