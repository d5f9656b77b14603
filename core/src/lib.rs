//! An append-only commit log: records go in at one end, get a number, and are on stable storage when
//! [`Log::append`] returns. The same bytes on a server, in a WASI sandbox and in a browser.
//!
//! ```
//! # let temporary = tempfile::tempdir()?;
//! # let directory = temporary.path().join("orders");
//! use proglog::{Log, NewRecord, Offset, Options};
//!
//! let log = Log::open(&directory, Options::new())?;
//! let offset = log.append(NewRecord::new("paid").key("order-7"))?;
//! assert_eq!(log.read(offset)?.value(), b"paid");
//!
//! // A batch is all or nothing, also in a crash.
//! log.append_batch(["picked", "packed", "sent"])?;
//! for record in log.scan(Offset(1)..) {
//!     let record = record?;
//!     println!("{} {:?}", record.offset(), record.value());
//! }
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is made
//!
//! ```text
//!  Log      offsets   0 ─────────────────── 6120 ────────────────── 12544 ──────── 14000
//!           lowest_offset                                             │       next_offset
//!                     ┌──────────────────┐ ┌──────────────────┐ ┌─────┴─────────┐
//!  Segment            │ sealed, base 0   │ │ sealed, 6120     │ │ active, 12544 │ ◄─ append
//!                     └──────────────────┘ └──────────────────┘ └───────────────┘
//!                       0.store              6120.store           12544.store
//!                       0.index              6120.index           12544.index
//!
//!  Store    ┌────────┬──────────────────┬────────┬─────────────┬────────┬───────────
//!           │ length │ record 0         │ length │ record 1    │ length │ record 2 …
//!           └────────┴──────────────────┴────────┴─────────────┴────────┴───────────
//!           ▲ position 0                ▲ 47                   ▲ 89
//!           └──────────────┐            └──────┐               └────┐
//!  Index    ┌──────────────┴─┬─────────────────┴─┬──────────────────┴─┬─────────────
//!           │ 0 → 0          │ 1 → 47            │ 2 → 89             │ 3 → …
//!           └────────────────┴───────────────────┴────────────────────┴─────────────
//!  Backend  files: FsBackend (files memory-mapped), MemoryBackend, FaultBackend, or your own
//! ```
//!
//! A [`Log`] is a row of [`Segment`]s; a segment is a [`Store`], the file of framed records, and an
//! [`Index`], which maps an offset to a position in it. The names are those of the book *Distributed
//! Services with Go*, whose directories open here. The bytes are described in [`mod@format`].
//!
//! # What it promises
//!
//! * **Durability.** [`Durability::Synced`], the default: a record whose offset was returned survives a
//!   power cut. [`Durability::Written`] survives the process being killed, [`Durability::Buffered`]
//!   neither. Per log, or per append ([`Log::append_with`]); [`Options::sync_interval`]
//!   bounds how long the weaker two stay unsynced, [`Log::durable_offset`] tells what is on stable storage.
//!   Threads that append at the same time share a sync.
//! * **Atomic batches.** [`Log::append_batch`] leaves all its records or none.
//! * **What is sent again is there once.** A record may say whose it is and which of theirs
//!   ([`NewRecord::producer`]): [`Log::append`] then gives the offset it got when it was sent first. An append may
//!   also expect its offset ([`AppendOptions::expected_next_offset`]).
//! * **Nothing is lost silently.** Every record carries a checksum, which every read verifies. What a
//!   crash left half-written is cut off and told by [`Log::recovery_report`]; anything else that is bad
//!   stays where it is, reads of it give [`Error::Corrupt`] and reads around it work.
//! * **A failed write is not tried again.** It poisons the log ([`Error::Poisoned`]) until it is opened
//!   anew, because no one knows what the disk holds.
//! * **Reads wait for no one.** Once a sealed segment is mapped, by its first read, reading it takes no lock and
//!   makes no system call: records are slices of the mapped file, and stay whole when they are truncated
//!   away. What is being appended is read from where it was put.
//! * **Subscriptions sleep until they are woken** ([`Log::subscribe`]), by appends in this process; they cost those who append
//!   nothing unless they wait, and a record once it can be read wakes them. With the feature `stream` they are streams
//!   for async code, without a runtime of their own.
//! * **One writer.** A second one gets [`Error::Locked`]; [`Log::open_read_only`] reads beside a writer.
//! * **No panic, no hang** on whatever bytes are in the directory; memory is bounded by the largest record
//!   or batch and, for each segment whose index is not in its file yet, 8 bytes a record. Mapped files are the exception that
//!   every program has that maps files: another one that cuts a log's files while they are read, against the
//!   directory's lock, ends the reader (SIGBUS).

mod backend;
mod error;
mod gap;
mod index;
mod log;
mod offset;
mod options;
mod record;
mod recovery;
mod report;
mod segment;
mod store;
mod swap;
#[allow(
    unsafe_code,
    reason = "memory shared by a writer and its readers; each block says why it holds"
)]
mod tail;
mod views;

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub use backend::fs::{DirectoryLock, FileAccess, FsBackend, FsFile};
pub use backend::{
    Access, Backend, BackendFile,
    fault::{Fault, FaultBackend, FaultFile, PowerCuts},
    memory::{MemoryBackend, MemoryFile},
};
pub use error::{Damaged, Error, Result};
pub use gap::{Gap, GapCause};
pub use index::Index;
#[cfg(feature = "stream")]
pub use log::SubscriptionStream;
#[cfg(not(target_family = "wasm"))]
pub use log::Unfinished;
pub use log::{
    Compacted, CompactedSegment, Compaction, Kept, LeftAlone, LeftAloneReason, Log, Lost, Next,
    Repair, Scan, SetAside, SetAsideReason, Subscription,
};
pub use offset::Offset;
pub use options::{AppendOptions, Clock, Durability, Options, Retention, Verify};
pub use record::{Frames, Header, NewRecord, Producer, ProducerLast, Record};
pub use report::{
    Damage, Gaps, IndexState, Location, Report, SegmentReport, SegmentSummary, TornTail,
};
pub use segment::{Drafts, Segment};
pub use store::Store;
pub use tail::Tail;
pub use views::Views;

/// Where a [`Log`] lives unless told otherwise: the file system, or memory where there is none.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub type DefaultBackend = FsBackend;
/// Where a [`Log`] lives unless told otherwise: the file system, or memory where there is none.
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub type DefaultBackend = MemoryBackend;
