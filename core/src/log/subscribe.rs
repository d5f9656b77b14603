//! Following a log: what is there, and then what comes.

#[cfg(not(target_family = "wasm"))]
use std::time::{Duration, Instant};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Acquire},
};

#[cfg(not(target_family = "wasm"))]
use super::subscribers::{Sleeper, Waiting};
use super::{Log, Shared, scan::Chunk, subscribers::Truncation};
use crate::{Backend, DefaultBackend, Error, Offset, Record, Result};

/// How much a subscription reads at a time, where what it reads is not mapped.
const READ_BYTES: usize = 256 << 10;

/// The records of a [`Log`] from some offset on, those that there are and those that are appended later: see
/// [`Log::subscribe`].
///
/// It gives each record once, in order, as soon as [`Log::read`] does: a record appended `Synced` when it is synced, or
/// when another after it that asked for less, or is in the next segment, can be read. What must not be lost by a power
/// cut once it was given is below [`Log::durable_offset`]. Where there is none yet it waits, without using the
/// processor, until one is appended: [`Subscription::next_timeout`] for a while, its `Iterator` as long as it takes,
/// [`Subscription::try_next`] not at all; `Subscription::into_stream`, with the feature `stream`, is for async code.
///
/// A damaged record is an `Err`, and the subscription goes on after it. Any other error ends it, until
/// [`Subscription::seek`] says where to go on, so that no record is passed over by who does not look at errors:
///
/// * [`Error::OffsetOutOfRange`]: it was too slow, and [`Log::truncate_before`] removed the record that was to
///   come. The error names the `lowest` there is.
/// * [`Error::Truncated`]: [`Log::truncate_after`] or [`Log::reset`] removed records that stood before it, and others
///   get, or have got, their offsets. The error names the `next` of these, from which Kafka's consumers and `tail -F`
///   would go on.
/// * [`Error::Poisoned`]: nothing will come any more until the log is opened anew.
///
/// It also ends when the log is closed or dropped, once it has given what was left, as far as that can still be
/// read: another may have truncated it by then. It does not keep a log from being closed, nor its directory from being
/// opened again, only some files from being closed before it is dropped.
///
/// A slow subscription costs those who append nothing, and itself no memory: the records wait where they are. It has
/// read ahead 256 KiB, or holds a segment's mapped file; that of a segment which is removed meanwhile gives its space
/// back when the subscription is past it, or dropped.
///
/// # On a log opened read-only
///
/// Another process appends there, which wakes no one here. So a subscription that waits looks again by itself,
/// as [`Log::refresh`] does: a millisecond after something came, then ever more rarely, and 10 times a second at the
/// least. What comes is thus seen after an eighth of the time since something came, or 1 ms, and at the latest after
/// 100 ms. However many subscriptions of this log wait, one of them looks for all. If the log was truncated
/// and has grown past where the subscription is before it looks, what came in the place of records it has given is
/// not given. [`Subscription::try_next`] and a stream do not look by themselves: they give what [`Log::refresh`]
/// takes in, which wakes a stream.
///
/// # In wasm
///
/// There are no threads to wait, hence neither `next_timeout` nor `Iterator`.
///
/// # Example
///
/// ```
/// # use proglog::{Log, MemoryBackend, Next, Offset, Options};
/// use std::{thread, time::Duration};
///
/// let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// log.append("there")?;
/// let mut subscription = log.subscribe(Offset(0));
/// let reader = thread::spawn(move || {
///     loop {
///         match subscription.next_timeout(Duration::from_secs(60))? {
///             Next::Record(record) => println!("{:?}", record.value()),
///             Next::NotYet => println!("a minute without a record"),
///             Next::Ended => return Ok::<_, proglog::Error>(subscription.offset()),
///         }
///     }
/// });
/// log.append("comes")?;
/// log.close()?;
/// assert_eq!(reader.join().unwrap()?, Offset(2));
/// # Ok::<(), proglog::Error>(())
/// ```
pub struct Subscription<B: Backend = DefaultBackend> {
    shared: Arc<Shared<B>>,
    next: Offset,
    chunk: Option<Chunk<B>>,
    truncation: Arc<Truncation>,
    ended: bool,
    #[cfg(not(target_family = "wasm"))]
    pace: Pace,
}

/// What a [`Subscription`] has to give.
#[derive(Debug)]
pub enum Next {
    /// The next record.
    Record(Record),
    /// There is none yet.
    NotYet,
    /// None will come: the log was closed, or an error was given and [`Subscription::seek`] not called since.
    Ended,
}

impl<B: Backend> Log<B> {
    /// Gives the records from `from` on, those that there are and those that are appended from now on, to which it
    /// wakes. `from` may be past the end: it then waits until there is a record of this offset. See [`Subscription`].
    ///
    /// A subscription can go to another thread, as the log can, and there may be any number of them.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// let subscription = log.subscribe(Offset(1));
    /// log.append_batch(["a", "b", "c"])?;
    /// log.close()?; // or it would wait for more
    /// let records: Vec<_> = subscription.collect::<Result<_, _>>()?;
    /// assert_eq!(records.len(), 2);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn subscribe(&self, from: Offset) -> Subscription<B> {
        Subscription {
            shared: Arc::clone(&self.shared),
            next: from,
            chunk: None,
            truncation: self.shared.subscribers.subscribe(),
            ended: false,
            #[cfg(not(target_family = "wasm"))]
            pace: Pace::default(),
        }
    }
}

impl<B: Backend> Subscription<B> {
    /// The next record if it is there. Waits for nothing but the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for a damaged record, after which it goes on; those that end it: see [`Subscription`];
    /// [`Error::Io`], which ends it too.
    #[inline]
    pub fn try_next(&mut self) -> Result<Next> {
        if let Some(record) = self.next_in_chunk() {
            return Ok(Next::Record(record));
        }
        self.next_from_log()
    }

    /// The offset of the record that is to come.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.next
    }

    /// Goes on from another offset, also where an error has ended it.
    pub fn seek(&mut self, to: Offset) {
        self.chunk = None;
        // Where it is going it knows nothing of what was there.
        self.truncation.take();
        self.next = to;
        self.ended = false;
    }

    #[inline]
    fn next_in_chunk(&mut self) -> Option<Record> {
        if self.truncation.is_untold() {
            return None;
        }
        let (bytes, frame, layout) = self.chunk.as_mut()?.next(self.next)?;
        let record = Record::of(bytes.slice(frame), layout);
        self.next = self.next.next();
        Some(record)
    }

    #[cold]
    fn next_from_log(&mut self) -> Result<Next> {
        if self.ended {
            return Ok(Next::Ended);
        }
        if let Some(chunk) = &mut self.chunk {
            let after = chunk.after_gaps(self.next);
            if after > self.next && !self.truncation.is_untold() {
                self.next = after;
                return self.try_next();
            }
        }
        loop {
            let before = self.next;
            self.chunk = None;
            let found = self.read_on();
            // Asked afterwards: who finds a record in the place of one that was truncated finds out.
            if let Some(next) = self.truncation.take() {
                self.next = before;
                self.ended = false;
                if next < before {
                    let offset = before;
                    return self.end_with(Error::Truncated { offset, next });
                }
                // What was found may be what was there before.
                continue;
            }
            return found;
        }
    }

    fn read_on(&mut self) -> Result<Next> {
        loop {
            let shared = &self.shared;
            // Before the end is asked for: once it is closed, no record comes after that.
            let (closed, poisoned) = (shared.closed.load(Acquire), shared.check_poisoned());
            if self.next >= shared.view.load().next_offset() {
                self.ended = closed;
                return match poisoned {
                    _ if closed => Ok(Next::Ended),
                    Ok(()) => Ok(Next::NotYet),
                    Err(e) => self.end_with(e.into()),
                };
            }
            let found = shared.in_segment(self.next, |segment| segment.read(self.next));
            return match found.map_err(Error::from) {
                Ok(record) => {
                    self.next = self.next.next();
                    if self.next < shared.view.load().next_offset() {
                        // What cannot be had now is asked for again.
                        self.chunk = shared.chunk(self.next, READ_BYTES).ok();
                    }
                    Ok(Next::Record(record))
                }
                Err(Error::Gap { next, .. }) => {
                    self.next = next;
                    continue;
                }
                // It was truncated meanwhile.
                Err(Error::OffsetOutOfRange { next, .. }) if self.next >= next => Ok(Next::NotYet),
                Err(e) => match shared.after_damage(&e) {
                    Some(after) => {
                        self.next = after;
                        Err(e)
                    }
                    None => self.end_with(e),
                },
            };
        }
    }

    fn end_with(&mut self, e: Error) -> Result<Next> {
        self.chunk = None;
        self.ended = true;
        Err(e)
    }
}

#[cfg(not(target_family = "wasm"))]
impl<B: Backend> Subscription<B> {
    /// The next record; waits for it, for no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Subscription::try_next`].
    #[inline]
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Next> {
        match self.try_next() {
            Ok(Next::NotYet) => self.wait_until(Instant::now().checked_add(timeout)),
            found => found,
        }
    }

    #[cold]
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Next> {
        let is_past = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            let due = self.look_again()?;
            if is_past() {
                return self.try_next();
            }
            let sleeper = Sleeper::new();
            let waiting = Waiting::begin(&self.shared, Arc::clone(&sleeper).into());
            let mut found = self.try_next();
            if matches!(found, Ok(Next::NotYet)) {
                sleeper.sleep(deadline.into_iter().chain(due).min());
                drop(waiting);
                found = self.try_next();
            }
            if !matches!(found, Ok(Next::NotYet)) {
                self.pace.found = due.map(|_| Instant::now());
                return found;
            }
        }
    }

    /// Where no one would wake it, takes in what there is if it is time to, and says when it will be again.
    fn look_again(&mut self) -> Result<Option<Instant>> {
        if !self.shared.read_only || self.shared.closed.load(Acquire) {
            return Ok(None);
        }
        // One looks for all: who finds something wakes the others.
        let mut looked = self.shared.subscribers.looked();
        let now = Instant::now();
        let wait = self.pace.wait(now);
        // A little early rather than woken twice, by a caller who has something to do as often.
        let early = Pace::SHORTEST.min(wait / 2);
        if let Some(due) = looked.map(|looked| looked + wait)
            && now + early < due
        {
            return Ok(Some(due));
        }
        let refreshed = self.shared.refresh();
        let now = Instant::now();
        *looked = Some(now);
        drop(looked);
        if let Err(e) = refreshed {
            self.end_with(e.into())?;
        }
        Ok(Some(now + wait))
    }
}

/// How often it is looked for what another process appended.
#[cfg(not(target_family = "wasm"))]
#[derive(Debug, Default)]
struct Pace {
    /// When something was found last.
    found: Option<Instant>,
}

#[cfg(not(target_family = "wasm"))]
impl Pace {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(100);

    /// How long after a look the next is due: an eighth of how long nothing was found, so that what comes at regular
    /// times is late by no more.
    fn wait(&mut self, now: Instant) -> Duration {
        let found = *self.found.get_or_insert(now);
        (now.saturating_duration_since(found) / 8).clamp(Self::SHORTEST, Self::LONGEST)
    }
}

/// Waits for each record as long as it takes, and ends where the subscription does.
#[cfg(not(target_family = "wasm"))]
impl<B: Backend> Iterator for Subscription<B> {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let found = match self.try_next() {
            Ok(Next::NotYet) => self.wait_until(None),
            found => found,
        };
        match found {
            Ok(Next::Record(record)) => Some(Ok(record)),
            Ok(Next::NotYet | Next::Ended) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

impl<B: Backend> fmt::Debug for Subscription<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("offset", &self.next)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "stream")]
pub use stream::SubscriptionStream;

/// Subscriptions for async code.
#[cfg(feature = "stream")]
mod stream {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures_core::Stream;

    use super::{Next, Subscription};
    use crate::{Backend, DefaultBackend, Record, Result, log::subscribers::Waiting};

    /// A [`Subscription`] as a [`Stream`], for whichever executor polls it: appends wake it, there is neither a
    /// thread nor a timer. Whoever appends calls the waker, sometimes while others wait to append; so it is to schedule
    /// the task, as executors' wakers do, not to run it. It reads where it is polled, from memory or a mapped file, which waits for nothing but the
    /// disk; give one that reads much from a cold disk a thread where that matters.
    ///
    /// Dropping it, or the future that waits for its next record, is enough to cancel it: no record is lost.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// use futures_lite::{StreamExt, future::block_on};
    ///
    /// let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// let mut records = log.subscribe(Offset(0)).into_stream();
    /// log.append("hello")?;
    /// let record = block_on(records.next()).expect("the log is open")?;
    /// assert_eq!(record.value(), b"hello");
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[derive(Debug)]
    pub struct SubscriptionStream<B: Backend = DefaultBackend> {
        subscription: Subscription<B>,
        waiting: Option<Waiting<B>>,
    }

    impl<B: Backend> Subscription<B> {
        /// The same records as a [`Stream`].
        #[must_use]
        pub fn into_stream(self) -> SubscriptionStream<B> {
            SubscriptionStream {
                subscription: self,
                waiting: None,
            }
        }
    }

    impl<B: Backend> SubscriptionStream<B> {
        /// The subscription, to ask where it stands or to [seek](Subscription::seek).
        pub fn subscription(&mut self) -> &mut Subscription<B> {
            &mut self.subscription
        }

        /// The subscription, to go on without async.
        #[must_use]
        pub fn into_subscription(self) -> Subscription<B> {
            self.subscription
        }
    }

    impl<B: Backend> Stream for SubscriptionStream<B> {
        type Item = Result<Record>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            let this = &mut *self;
            loop {
                let found = match this.subscription.try_next() {
                    Ok(Next::Record(record)) => Some(Ok(record)),
                    Ok(Next::Ended) => None,
                    Err(e) => Some(Err(e)),
                    Ok(Next::NotYet) => {
                        let waker = context.waker();
                        match &this.waiting {
                            Some(waiting) if !waiting.is_woken_or(waker) => return Poll::Pending,
                            // And then looks again.
                            _ => {
                                this.waiting =
                                    Some(Waiting::begin(&this.subscription.shared, waker.clone()))
                            }
                        }
                        continue;
                    }
                };
                // As long as it does not wait, it is not to cost those who append anything.
                this.waiting = None;
                return Poll::Ready(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering::SeqCst, thread, time::Duration};

    use super::*;
    use crate::{MemoryBackend, Options};

    fn log() -> Log<MemoryBackend> {
        Log::open_on(MemoryBackend::new(), Options::new()).unwrap()
    }

    fn waiting(log: &Log<MemoryBackend>) -> usize {
        log.shared.subscribers.waiting.load(SeqCst)
    }

    #[test]
    fn only_those_who_wait_are_counted() {
        let log = log();
        let mut subscription = log.subscribe(Offset(0));
        let found = subscription.next_timeout(Duration::from_millis(1));
        assert!(matches!(found, Ok(Next::NotYet)));
        assert_eq!(waiting(&log), 0);
        let reader = thread::spawn(move || {
            assert!(matches!(subscription.next(), Some(Ok(_))));
            subscription
        });
        while waiting(&log) == 0 {
            thread::yield_now();
        }
        log.append("any").unwrap();
        let subscription = reader.join().unwrap();
        assert_eq!(waiting(&log), 0);
        drop(subscription);
    }

    #[cfg(feature = "stream")]
    #[test]
    fn a_stream_that_is_dropped_waits_no_more() {
        use futures_lite::{StreamExt, future};

        let log = log();
        let mut records = log.subscribe(Offset(0)).into_stream();
        assert!(future::block_on(future::poll_once(records.next())).is_none());
        assert_eq!(waiting(&log), 1);
        assert!(future::block_on(future::poll_once(records.next())).is_none());
        assert_eq!(waiting(&log), 1);
        drop(records);
        assert_eq!(waiting(&log), 0);

        let mut records = log.subscribe(Offset(0)).into_stream();
        assert!(future::block_on(future::poll_once(records.next())).is_none());
        log.append("any").unwrap();
        assert!(future::block_on(records.next()).is_some());
        assert_eq!(waiting(&log), 0);
    }

    #[test]
    fn subscriptions_that_are_dropped_are_forgotten() {
        let log = log();
        for _ in 0..10_000 {
            drop(log.subscribe(Offset(0)));
        }
        assert!(log.shared.subscribers.known() < 100);
    }

    #[test]
    fn it_looks_again_soon_and_then_less_and_less() {
        let start = Instant::now();
        let mut pace = Pace { found: Some(start) };
        let mut now = start;
        let mut looks = 0;
        while now < start + Duration::from_secs(1) {
            let wait = pace.wait(now);
            assert!(wait >= Pace::SHORTEST && wait <= Pace::LONGEST);
            assert!(wait <= ((now - start) / 8).max(Pace::SHORTEST));
            (now, looks) = (now + wait, looks + 1);
        }
        assert!((20..60).contains(&looks), "{looks}");
    }
}
