//! What is replaced whole while others read it, natively without a lock. In a wasm module no one waits for one, and
//! `arc_swap` would be more code for a browser to load.

#[cfg(not(target_family = "wasm"))]
pub(crate) use arc_swap::{ArcSwap, ArcSwapOption, Guard};

#[cfg(target_family = "wasm")]
pub(crate) use single::{ArcSwap, ArcSwapOption, Guard};

#[cfg(target_family = "wasm")]
mod single {
    use std::{
        ops::Deref,
        sync::{Arc, Mutex, MutexGuard, PoisonError},
    };

    /// As `arc_swap::ArcSwapAny`, for as much of it as is used.
    #[derive(Debug)]
    pub(crate) struct Swap<T>(Mutex<T>);

    pub(crate) type ArcSwap<T> = Swap<Arc<T>>;
    pub(crate) type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

    /// What was loaded.
    #[derive(Debug)]
    pub(crate) struct Guard<T>(T);

    impl<T> Deref for Guard<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T: Clone> Swap<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn load(&self) -> Guard<T> {
            Guard(self.load_full())
        }

        pub(crate) fn load_full(&self) -> T {
            self.lock().clone()
        }

        pub(crate) fn store(&self, value: T) {
            // The one before is dropped once the lock is released.
            let _before = std::mem::replace(&mut *self.lock(), value);
        }

        fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self::new(Arc::new(value))
        }
    }

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> Self {
            Self::new(None)
        }
    }
}
