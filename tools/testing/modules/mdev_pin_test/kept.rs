// SPDX-License-Identifier: GPL-2.0

//! Objects that should have been released.

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
use kernel_ext::compat::EUCLEAN;
use vfio_mdev::{
    GuestAccess,
    GuestPages,
    Instance, //
};

use crate::{
    pages::Pages,
    Pinner, //
};

/// The pages and the device kept after a close, and pages that are never unpinned.
#[pin_data]
pub(crate) struct Kept {
    #[pin]
    closed: Mutex<Option<Closed>>,
    /// The pages are never dropped, as after `core::mem::forget`, but kmemleak finds them here.
    #[pin]
    forgotten: Mutex<KVec<ManuallyDrop<GuestPages>>>,
}

/// A closed device, with pages that it should have unpinned.
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
    /// `ENOMEM`; the pages are unpinned in this case.
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

    /// Tries to access the memory of the process that had opened the kept device. Releases the
    /// kept device and its pages, and returns the number of the pages. `open` is an open device,
    /// which may be the kept one.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nothing is kept, `EUCLEAN` if any access succeeded.
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

    /// Releases the kept device.
    pub(crate) fn clear(&self) {
        drop(self.closed.lock().take());
    }
}

/// Checks that an access has failed with the errno required after the device was closed.
fn refused(access: Result) -> Result {
    match access {
        Err(e) if e == ENODEV => Ok(()),
        _ => Err(EUCLEAN),
    }
}
