//! Floors: what the machine allows, in our own few lines.

mod read;
mod space;
mod write;

pub use self::read::check_newest_store;

use self::{
    read::{Reader, Way},
    space::Space,
    write::{Buffered, Call, Each, Mapped, Meanwhile, Memcpy, Populate},
};
use crate::subject::{Group, Kind, Promise};

const ZEROED: Space = Space::Zeroed {
    chunk_bytes: 64 << 10,
};

/// A floor by its name and how it is opened.
macro_rules! floor {
    ($constant:ident, $name:literal, $kept:literal, |$setup:ident| $open:expr) => {
        pub const $constant: Kind = Kind {
            name: $name,
            group: Group::Floor,
            open: |$setup| $open,
            kept: |promise| match promise {
                Promise::Synced => "power cut",
                Promise::Buffered | Promise::Written => $kept,
            },
        };
    };
}

floor!(MEMCPY, "memcpy", "nothing", |s| Memcpy::open(s));

floor!(
    BUFFERED_RAW,
    "buffered write, no checksum",
    "nothing",
    |s| { Buffered::open(s, Space::Growing, false, Meanwhile::Nothing) }
);
floor!(BUFFERED, "buffered write", "nothing", |s| {
    Buffered::open(s, Space::Growing, true, Meanwhile::Nothing)
});
floor!(
    BUFFERED_RAW_ZEROED,
    "buffered write, no checksum, zero-filled",
    "nothing",
    |s| { Buffered::open(s, ZEROED, false, Meanwhile::Nothing) }
);
floor!(
    BUFFERED_ZEROED,
    "buffered write, zero-filled",
    "nothing",
    |s| { Buffered::open(s, ZEROED, true, Meanwhile::Nothing) }
);
floor!(
    BUFFERED_FALLOCATED,
    "buffered write, fallocated",
    "nothing",
    |s| { Buffered::open(s, Space::Fallocated, true, Meanwhile::Nothing) }
);
floor!(
    BUFFERED_DEVICE_ZEROED,
    "buffered write, zeroed by the device",
    "nothing",
    |s| { Buffered::open(s, Space::DeviceZeroed, true, Meanwhile::Nothing) }
);
floor!(
    BUFFERED_ZEROS_AHEAD,
    "buffered write, zeros 8 MiB ahead by a thread",
    "nothing",
    |s| { Buffered::open(s, Space::Growing, true, Meanwhile::ZerosInSameFile) }
);
floor!(
    BUFFERED_ZEROS_ELSEWHERE,
    "buffered write, zero-filled, a thread zero-fills the next file",
    "nothing",
    |s| Buffered::open(s, ZEROED, true, Meanwhile::ZerosInOtherFile)
);

floor!(WRITE, "write a record", "kill -9", |s| {
    Each::open(s, Space::Growing, Call::Write, false)
});
floor!(PWRITE, "pwrite a record", "kill -9", |s| {
    Each::open(s, Space::Growing, Call::Pwrite, false)
});
floor!(
    PWRITE_ZEROED,
    "pwrite a record, zero-filled",
    "kill -9",
    |s| { Each::open(s, ZEROED, Call::Pwrite, false) }
);
floor!(
    PWRITE_FALLOCATED,
    "pwrite a record, fallocated",
    "kill -9",
    |s| { Each::open(s, Space::Fallocated, Call::Pwrite, false) }
);
floor!(WRITEV, "writev a record", "kill -9", |s| {
    Each::open(s, Space::Growing, Call::Pwritev, false)
});

floor!(
    WRITEV_ZEROED,
    "writev a record, zero-filled",
    "kill -9",
    |s| { Each::open(s, ZEROED, Call::Pwritev, false) }
);

floor!(MAPPED, "mapped write, faults", "kill -9", |s| {
    Mapped::open(s, Space::Fallocated, Populate::Never, false)
});
floor!(
    MAPPED_INLINE,
    "mapped write, populated inline",
    "kill -9",
    |s| { Mapped::open(s, Space::Fallocated, Populate::Inline, false) }
);
floor!(
    MAPPED_THREAD,
    "mapped write, populated by a thread",
    "kill -9",
    |s| { Mapped::open(s, Space::Fallocated, Populate::Thread, false) }
);
floor!(
    MAPPED_BEFORE,
    "mapped write, populated beforehand",
    "kill -9",
    |s| { Mapped::open(s, Space::Fallocated, Populate::Before, false) }
);
floor!(
    MAPPED_ZEROED,
    "mapped write, zero-filled, faults",
    "kill -9",
    |s| { Mapped::open(s, ZEROED, Populate::Never, false) }
);
floor!(
    MAPPED_ZEROED_INLINE,
    "mapped write, zero-filled, populated inline",
    "kill -9",
    |s| { Mapped::open(s, ZEROED, Populate::Inline, false) }
);
floor!(
    MAPPED_ZEROED_THREAD,
    "mapped write, zero-filled, populated by a thread",
    "kill -9",
    |s| { Mapped::open(s, ZEROED, Populate::Thread, false) }
);
floor!(
    MAPPED_ZEROED_BEFORE,
    "mapped write, zero-filled, populated beforehand",
    "kill -9",
    |s| { Mapped::open(s, ZEROED, Populate::Before, false) }
);

floor!(
    SYNC_ZEROED,
    "pwrite + fdatasync, zero-filled",
    "power cut",
    |s| { Each::open(s, ZEROED, Call::Pwrite, true) }
);
floor!(
    SYNC_FALLOCATED,
    "pwrite + fdatasync, fallocated",
    "power cut",
    |s| { Each::open(s, Space::Fallocated, Call::Pwrite, true) }
);
floor!(
    SYNC_GROWING,
    "pwrite + fdatasync, growing",
    "power cut",
    |s| { Each::open(s, Space::Growing, Call::Pwrite, true) }
);
floor!(
    SYNC_DSYNC,
    "pwritev2 RWF_DSYNC, zero-filled",
    "power cut",
    |s| { Each::open(s, ZEROED, Call::PwriteDsync, false) }
);
floor!(
    SYNC_MAPPED,
    "mapped write + fdatasync, zero-filled",
    "power cut",
    |s| { Mapped::open(s, ZEROED, Populate::Never, true) }
);

floor!(
    PWRITE_ZEROED_4K,
    "pwrite a record, zero-filled by 4 KiB",
    "kill -9",
    |s| {
        Each::open(
            s,
            Space::Zeroed {
                chunk_bytes: 4 << 10,
            },
            Call::Pwrite,
            false,
        )
    }
);
floor!(
    PWRITE_ZEROED_1M,
    "pwrite a record, zero-filled by 1 MiB",
    "kill -9",
    |s| {
        Each::open(
            s,
            Space::Zeroed {
                chunk_bytes: 1 << 20,
            },
            Call::Pwrite,
            false,
        )
    }
);
floor!(
    BUFFERED_ZEROED_4K,
    "buffered write, zero-filled by 4 KiB",
    "nothing",
    |s| {
        Buffered::open(
            s,
            Space::Zeroed {
                chunk_bytes: 4 << 10,
            },
            true,
            Meanwhile::Nothing,
        )
    }
);
floor!(
    BUFFERED_ZEROED_1M,
    "buffered write, zero-filled by 1 MiB",
    "nothing",
    |s| {
        Buffered::open(
            s,
            Space::Zeroed {
                chunk_bytes: 1 << 20,
            },
            true,
            Meanwhile::Nothing,
        )
    }
);
floor!(
    SYNC_ZEROED_4K,
    "pwrite + fdatasync, zero-filled by 4 KiB",
    "power cut",
    |s| {
        Each::open(
            s,
            Space::Zeroed {
                chunk_bytes: 4 << 10,
            },
            Call::Pwrite,
            true,
        )
    }
);
floor!(
    SYNC_ZEROED_1M,
    "pwrite + fdatasync, zero-filled by 1 MiB",
    "power cut",
    |s| {
        Each::open(
            s,
            Space::Zeroed {
                chunk_bytes: 1 << 20,
            },
            Call::Pwrite,
            true,
        )
    }
);
floor!(
    SYNC_MAPPED_4K,
    "mapped write + fdatasync, zero-filled by 4 KiB",
    "power cut",
    |s| {
        Mapped::open(
            s,
            Space::Zeroed {
                chunk_bytes: 4 << 10,
            },
            Populate::Never,
            true,
        )
    }
);

floor!(READ_MEMCPY, "memcpy", "", |s| Reader::open(s, Way::Memcpy));
floor!(READ_MMAP, "mmap read", "", |s| Reader::open(
    s,
    Way::Mmap { checked: true }
));
floor!(READ_MMAP_RAW, "mmap read, no checksum", "", |s| {
    Reader::open(s, Way::Mmap { checked: false })
});
floor!(READ_PREAD, "pread", "", |s| Reader::open(
    s,
    Way::Pread { checked: true }
));
floor!(READ_PREAD_RAW, "pread, no checksum", "", |s| {
    Reader::open(s, Way::Pread { checked: false })
});
floor!(CHECK_NEWEST, "checksums of the active segment", "", |_s| {
    anyhow::bail!("timed without opening")
});
