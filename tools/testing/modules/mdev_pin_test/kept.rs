// SPDX-License-Identifier: GPL-2.0

//! What should be gone.

use core::mem::ManuallyDrop;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};
use vfio_mdev::{
    GuestAccess,
    GuestPages,
    Instance, //
};

use crate::{
    pages::Pages,
    Pinner, //
};

/// What is kept of a closed device, and pages that are never given back.
#[pin_data]
pub(crate) struct Kept {
    #[pin]
    closed: Mutex<Option<Closed>>,
    /// As after `core::mem::forget`, but where kmemleak finds them.
    #[pin]
    forgotten: Mutex<KVec<ManuallyDrop<GuestPages>>>,
}

/// A device that was closed, with pages that it should have given back.
struct Closed {
    device: ARef<Instance<Pinner>>,
    pages: Pages,
}

impl Kept {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                closed <- new_mutex!(None),
                forgotten <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Forgets pages without unpinning them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; they are unpinned then.
    pub(crate) fn forget(&self, pages: GuestPages) -> Result {
        let mut forgotten = self.forgotten.lock();
        forgotten.reserve(1, GFP_KERNEL)?;
        forgotten.push(ManuallyDrop::new(pages), GFP_KERNEL)?;
        Ok(())
    }

    /// Keeps a device that is being closed, and its pages.
    pub(crate) fn keep(&self, device: &Instance<Pinner>, pages: Pages) {
        let device = device.into();
        self.closed.lock().replace(Closed { device, pages });
    }

    /// Tries to reach the memory of the program that had the device which is kept. Gives up what is
    /// kept, and returns how many pages that were. `open` is a device that is open, maybe this one.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is kept, `EUCLEAN` if anything could be reached.
    pub(crate) fn try_out(&self, open: &Instance<Pinner>) -> Result<usize> {
        let Closed { device, pages } = self.closed.lock().take().ok_or(ENOENT)?;
        let mut bytes = [0; 8];
        for page in pages.iter() {
            refused(page.read(0, &mut bytes))?;
            refused(page.write(0, &bytes))?;
            if core::ptr::eq(&*device, open) {
                continue;
            }
            refused(device.dma_read(page.iova(), &mut bytes))?;
            refused(device.dma_write(page.iova(), &bytes))?;
            refused(device.pin(page.iova(), 1, GuestAccess::Read).map(drop))?;
        }
        Ok(pages.count())
    }

    /// Gives up the device that is kept.
    pub(crate) fn clear(&self) {
        drop(self.closed.lock().take());
    }
}

/// Checks that an access has failed as it has to once the device is closed.
fn refused(access: Result) -> Result {
    match access {
        Err(e) if e == ENODEV => Ok(()),
        _ => Err(EUCLEAN),
    }
}
