// SPDX-License-Identifier: GPL-2.0

//! The eventfds that signal a device's interrupts to userspace.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};
use kernel_ext::eventfd::EventFd;

/// The vectors of one interrupt type, each with the eventfd that userspace has set.
#[pin_data]
pub(crate) struct Vectors {
    #[pin]
    eventfds: SpinLock<KVec<Option<EventFd>>>,
}

/// A request for some of the vectors.
pub(crate) enum Action {
    /// Remove the eventfds of all vectors.
    DisableAll,
    /// Set or remove the eventfds of the vectors starting at `start`.
    Set {
        start: usize,
        eventfds: KVec<Option<EventFd>>,
    },
    /// Signal the vectors starting at `start` whose entry is true.
    Trigger { start: usize, vectors: KVec<bool> },
}

impl Vectors {
    /// Creates `count` vectors without eventfds.
    pub(crate) fn new(count: usize) -> Result<Pin<KBox<Self>>> {
        let mut eventfds = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            eventfds.push(None, GFP_KERNEL)?;
        }
        KBox::pin_init(
            pin_init!(Self { eventfds <- new_spinlock!(eventfds, "vfio_mdev::Vectors") }),
            GFP_KERNEL,
        )
    }

    /// Signals a vector. Returns whether userspace has set an eventfd for it.
    pub(crate) fn signal(&self, vector: usize) -> bool {
        match self.eventfds.lock().get(vector) {
            Some(Some(eventfd)) => {
                eventfd.signal();
                true
            }
            _ => false,
        }
    }

    /// Carries out a request. The vectors exist.
    pub(crate) fn apply(&self, action: Action) {
        match action {
            Action::DisableAll => self.disable_all(),
            Action::Set { start, eventfds } => self.replace(start, eventfds),
            Action::Trigger { start, vectors } => {
                for (i, _) in vectors.iter().enumerate().filter(|(_, &wanted)| wanted) {
                    self.signal(start + i);
                }
            }
        }
    }

    /// Removes all eventfds.
    pub(crate) fn disable_all(&self) {
        let count = self.eventfds.lock().len();
        for vector in 0..count {
            self.replace_one(vector, None);
        }
    }

    fn replace(&self, start: usize, eventfds: KVec<Option<EventFd>>) {
        for (i, eventfd) in eventfds.into_iter().enumerate() {
            self.replace_one(start + i, eventfd);
        }
    }

    fn replace_one(&self, vector: usize, eventfd: Option<EventFd>) {
        let former = match self.eventfds.lock().get_mut(vector) {
            Some(slot) => core::mem::replace(slot, eventfd),
            None => return,
        };
        drop(former);
    }
}
