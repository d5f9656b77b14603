//! The peers, each at its fastest configuration that keeps the promise asked for.

mod commitlog;
mod fjall;
mod laminarmq;
mod lmdb;
mod okaywal;
mod raft_engine;
mod redb;
mod sled;
mod spacetimedb;
mod sqlite;
mod walrus;

use crate::subject::Kind;

pub use self::{
    commitlog::KIND as COMMITLOG,
    lmdb::{KIND as LMDB, KIND_HELD as LMDB_HELD},
    okaywal::KIND as OKAYWAL,
    raft_engine::KIND as RAFT_ENGINE,
};

/// All of them, in the order of the tables.
pub const ALL: [Kind; 11] = [
    commitlog::KIND,
    okaywal::KIND,
    raft_engine::KIND,
    walrus::KIND,
    spacetimedb::KIND,
    fjall::KIND,
    lmdb::KIND,
    sqlite::KIND,
    redb::KIND,
    sled::KIND,
    laminarmq::KIND,
];

/// Those that read more than the 30 thousand records a second of laminarmq, the last, which would take
/// most of a run to go through 512 MiB.
pub const READERS: &[Kind] = ALL.split_at(ALL.len() - 1).0;
