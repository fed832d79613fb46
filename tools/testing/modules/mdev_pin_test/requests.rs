// SPDX-License-Identifier: GPL-2.0

//! The requests, see [`interface`](crate::interface).

use core::sync::atomic::Ordering::Relaxed;

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use vfio_mdev::{
    GuestAccess,
    Instance, //
};

use crate::{
    interface::*,
    Pinner, //
};

/// The maximum number of bytes copied by one request.
const MAX_BYTES: u32 = 1 << 20;

/// The structure of most requests.
struct Request {
    user: UserPtr,
    iova: u64,
    count: u32,
    prot: u32,
    word: u64,
}

impl Request {
    fn read(user: UserPtr) -> Result<Self> {
        let mut reader = UserSlice::new(user, HEADER).reader();
        Ok(Self {
            user,
            iova: reader.read()?,
            count: reader.read()?,
            prot: reader.read()?,
            word: reader.read()?,
        })
    }

    /// Returns the bytes that follow the structure.
    fn data(&self) -> UserSlice {
        let user = self.user.wrapping_byte_add(HEADER);
        UserSlice::new(user, self.count as usize)
    }

    /// Writes the word to user memory.
    fn answer(&self, word: u64) -> Result {
        let user = self.user.wrapping_byte_add(WORD);
        UserSlice::new(user, 8).writer().write(&word)
    }

    fn access(&self) -> Result<GuestAccess> {
        match self.prot {
            READ => Ok(GuestAccess::Read),
            WRITE => Ok(GuestAccess::Write),
            prot if prot == READ | WRITE => Ok(GuestAccess::ReadWrite),
            _ => Err(EINVAL),
        }
    }
}

/// Handles a request.
///
/// # Errors
///
/// `ENOTTY` for an unknown request; the errors of the requested operation.
pub(crate) fn ioctl(this: &Instance<Pinner>, cmd: u32, arg: UserPtr) -> Result<isize> {
    match cmd {
        MISBEHAVE => {
            let how = arg.as_const_ptr().addr() as u32;
            this.misbehaviour.store(how, Relaxed);
            if how & FAIL_RESETS != 0 {
                this.failing_resets.store(2, Relaxed);
            }
            Ok(0)
        }
        PINNED => Ok(this.pages.lock().count() as isize),
        UNMAPS => Ok(this.unmaps.load(Relaxed) as isize),
        TRY_KEPT => Ok(this.parent().kept.try_out(this)? as isize),
        PIN => pin(this, &Request::read(arg)?),
        PIN_ONLY => pin_only(this, &Request::read(arg)?),
        UNPIN => unpin(this, &Request::read(arg)?),
        POKE => poke(this, &Request::read(arg)?),
        DMA_READ => dma_read(this, &Request::read(arg)?),
        DMA_WRITE => dma_write(this, &Request::read(arg)?),
        _ => Err(ENOTTY),
    }
}

/// Pins all pages at once, to check that this is possible, and then pins and keeps each page
/// separately.
fn pin(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let access = request.access()?;
    let mut pages = this.pages.lock();
    let together = this.pin(request.iova, request.count as usize, access)?;
    for page in 0..u64::from(request.count) {
        pages.insert(this.pin(request.iova + page * PAGE_SIZE as u64, 1, access)?)?;
    }
    if access != GuestAccess::Write {
        let mut word = [0; 8];
        // An unmap takes the pages away once it has the lock.
        together.read(0, &mut word)?;
        drop(pages);
        request.answer(u64::from_ne_bytes(word))?;
    }
    Ok(request.count as isize)
}

/// Does not take the lock under which other pages are pinned, so several threads can do this
/// concurrently.
fn pin_only(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let pages = this.pin(request.iova, request.count as usize, request.access()?)?;
    this.parent().kept.forget(pages)?;
    Ok(request.count as isize)
}

fn unpin(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let bytes = u64::from(request.count) * PAGE_SIZE as u64;
    if let Some(before_last) = bytes.checked_sub(1) {
        let last = request.iova.saturating_add(before_last);
        this.pages.lock().remove(request.iova, last);
    }
    Ok(0)
}

fn poke(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let pages = this.pages.lock();
    let page = pages.get(request.iova).ok_or(ENOENT)?;
    page.write(0, &request.word.to_ne_bytes())?;
    Ok(0)
}

/// Allocates a buffer for the bytes to be copied.
fn buffer(request: &Request) -> Result<KVVec<u8>> {
    if request.count > MAX_BYTES {
        return Err(EINVAL);
    }
    Ok(KVVec::from_elem(0, request.count as usize, GFP_KERNEL)?)
}

fn dma_read(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let mut bytes = buffer(request)?;
    this.dma_read(request.iova, &mut bytes)?;
    request.data().writer().write_slice(&bytes)?;
    Ok(0)
}

fn dma_write(this: &Instance<Pinner>, request: &Request) -> Result<isize> {
    let mut bytes = buffer(request)?;
    request.data().reader().read_slice(&mut bytes)?;
    this.dma_write(request.iova, &bytes)?;
    Ok(0)
}
