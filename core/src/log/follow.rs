//! Following a writer in another process, which appends, rolls, truncates and begins anew meanwhile.
//!
//! A reader's view is the bases of the segments there were, and the last of them, open. The others are opened by their
//! names when they are first read, and by then another file may have such a name. This is how it is told: whatever
//! removes records at the end of a log removes or replaces the files of the last segment first (`FORMAT.md`, "Order
//! of writing"). So as long as the last segment's store has its name, what was opened by the others' names before
//! that was asked is what was listed.

use std::{
    io,
    sync::{Arc, MutexGuard, atomic::Ordering::AcqRel},
};

use super::{
    Segment, SegmentReader, Shared,
    append::{UNSEALED_MAX, Writer},
    open::{Listed, open_beside_writer},
    view::View,
};
use crate::{Backend, Error, Offset, error::Thin};

/// How often a reader tries again what a writer beside it is in the middle of, a millisecond apart where it can wait.
/// In a browser no one else writes.
const TRIES: u32 = if cfg!(all(target_family = "wasm", target_os = "unknown")) {
    0
} else if cfg!(target_family = "wasm") {
    4000
} else {
    250
};

/// How often it is asked how far the log is durable, where that fails.
const VOUCHED_TRIES: u32 = 3;

/// How long a reader waits for a writer to be done with something.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    waited: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left: TRIES,
            waited: false,
        }
    }
}

impl Patience {
    /// As long as a reset may take, which syncs the directory a few times before there is a log again.
    pub(super) fn for_reset() -> Self {
        Self {
            left: TRIES * 20,
            waited: false,
        }
    }

    /// Waits a little, unless that was done often enough.
    pub(super) fn wait(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        #[cfg(not(target_family = "wasm"))]
        if self.waited {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.left -= 1;
        self.waited = true;
        true
    }
}

/// Whether this is what a reader meets where a file was removed, replaced, or cut to its records just now.
pub(super) fn may_pass(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof))
}

impl<B: Backend> Shared<B> {
    /// Takes in what the writer appended or removed.
    pub(super) fn refresh(&self) -> Thin<()> {
        // One at a time.
        let mut writer = self.writer_anyway();
        let view = self.view.load_full();
        let listed = Listed::now(&self.backend)?;
        let active = writer.active().reader();
        let end = view.next_offset();
        let is_refreshed = listed.bases() == view.bases()
            && (active.has_index_file() || !listed.has_index(active.base()))
            // If it cannot be, the writer may have cut it just now.
            && matches!(active.refresh(), Ok(true));
        self.wake_if_longer(end);
        if is_refreshed {
            self.learn_durable(&view, active);
            return Ok(());
        }
        self.open_anew(&mut writer, &view)
    }

    /// Wakes subscriptions if the log ends later than it did, and only then: those that look for themselves would wake
    /// one another for nothing.
    fn wake_if_longer(&self, end: Offset) {
        if self.view.load().next_offset() > end {
            self.subscribers.wake_anyway();
        }
    }

    /// Shows readers what there is now.
    fn open_anew(&self, writer: &mut MutexGuard<'_, Writer<B>>, old: &Arc<View<B>>) -> Thin<()> {
        let Some(opened) = open_beside_writer(&self.backend, &self.options)? else {
            // A writer that begins anew has removed the last segment and not made the first.
            let last = writer.active().reader();
            let end = old.next_offset();
            self.tell_if_truncated(end, last.base());
            old.show_no_more(Offset(0));
            self.durable_is(last.base());
            self.view.store(Arc::new(View::new(&[], last)));
            self.tell_if_truncated(end, last.base());
            return Ok(());
        };
        let end = old.next_offset();
        let view = Arc::new(View::new(&opened.sealed, opened.active.reader()));
        let last = std::mem::replace(&mut **writer, Writer::new(opened.active));
        let last = last.into_active();
        // From now on no read gives a record that was removed, nor does a scan that is at it.
        let is_cut = last.reader().is_removed().unwrap_or(true);
        if is_cut {
            self.durable_is(opened.durable);
        } else {
            self.durable.fetch_max(opened.durable.0, AcqRel);
        }
        let _closed = self.opened.close();
        self.tell_if_truncated(end, view.next_offset());
        self.view.store(Arc::clone(&view));
        if is_cut {
            old.show_no_more(Offset(0));
        } else {
            old.show_none_below(view.lowest());
        }
        self.tell_if_truncated(end, view.next_offset());
        self.wake_if_longer(end);
        self.learn_durable(&view, writer.active().reader());
        Ok(())
    }

    /// Tells subscriptions if the log ends earlier than it did.
    fn tell_if_truncated(&self, end: Offset, next: Offset) {
        if next < end {
            self.subscribers.truncated_to(next);
        }
    }

    /// Learns of an index, in which an entry is written only once its record is synced, how far the log is durable.
    pub(super) fn learn_durable(&self, view: &View<B>, active: &SegmentReader<B::File>) {
        // Files that are cut to their records just now are looked at again; otherwise, what cannot be told now is
        // told another time.
        for _ in 0..VOUCHED_TRIES {
            let vouched = self.vouched_to(view, active);
            if !matches!(active.is_removed(), Ok(false)) {
                return;
            }
            if let Ok(vouched) = vouched {
                self.durable.fetch_max(vouched.0, AcqRel);
                return;
            }
        }
    }

    fn vouched_to(&self, view: &View<B>, active: &SegmentReader<B::File>) -> Thin<Offset> {
        let known = self.durable();
        let vouched = active.vouched_to(known)?;
        if vouched > active.base() || known >= active.base() {
            return Ok(vouched);
        }
        // Nothing vouches for a record of the last segment, so some before it may not be sealed yet.
        let mut sealed_to = active.base();
        for slot in view.slots().iter().rev().skip(1).take(UNSEALED_MAX) {
            match Segment::vouched_to(&self.backend, slot.base, &self.options) {
                Ok(vouched) if vouched > slot.base => return Ok(vouched.min(sealed_to)),
                Ok(_) => sealed_to = slot.base,
                // Those that are removed from the beginning were sealed before.
                Err(e) if e.is_not_found() => {
                    return Ok(sealed_to);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(sealed_to)
    }

    /// Whether something that failed in this view is to be tried again, in the view there is now: because the files
    /// are others than those listed, or one was cut to its records just now.
    pub(super) fn is_to_try_again(
        &self,
        view: &Arc<View<B>>,
        failure: Option<&Error>,
        patience: &mut Patience,
    ) -> Thin<bool> {
        let mut writer = self.writer_anyway();
        if !Arc::ptr_eq(view, &self.view.load()) {
            return Ok(true);
        }
        if !self.read_only {
            return Ok(false);
        }
        if self.is_as_listed(view, writer.active().reader())? {
            return Ok(failure.is_some_and(may_pass) && patience.wait());
        }
        if !patience.wait() {
            return Ok(false);
        }
        self.open_anew(&mut writer, view)?;
        Ok(true)
    }

    /// Whether the segments of a view are those that there are, or the first of these.
    fn is_as_listed(&self, view: &View<B>, active: &SegmentReader<B::File>) -> Thin<bool> {
        let listed = Listed::now(&self.backend)?;
        Ok(listed.bases_to(active.base()) == view.bases() && !active.is_removed()?)
    }
}
