// SPDX-License-Identifier: GPL-2.0

//! The eventfds by which a program learns of a device's interrupts.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock, //
};
use kernel_ext::eventfd::EventFd;

/// The vectors of one kind of interrupt, each with the eventfd that the program set.
#[pin_data]
pub(crate) struct Vectors {
    #[pin]
    eventfds: SpinLock<KVec<Option<EventFd>>>,
}

/// What a program wants of some vectors.
pub(crate) enum Action {
    /// All of the kind are to have no eventfd.
    DisableAll,
    /// The vectors from `start` on get these eventfds, or none.
    Set {
        start: usize,
        eventfds: KVec<Option<EventFd>>,
    },
    /// The vectors from `start` on are signalled, those that are true.
    Trigger { start: usize, vectors: KVec<bool> },
}

impl Vectors {
    /// `count` vectors without eventfds.
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

    /// Signals a vector. Returns whether the program has set an eventfd for it.
    pub(crate) fn signal(&self, vector: usize) -> bool {
        match self.eventfds.lock().get(vector) {
            Some(Some(eventfd)) => {
                eventfd.signal();
                true
            }
            _ => false,
        }
    }

    /// Does what a program wants; the vectors exist.
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

    /// Forgets all eventfds.
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
