// SPDX-License-Identifier: GPL-2.0

//! The memory of a window: one physically contiguous block of user memory.

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    iommu::{
        Access,
        Prot, //
    },
    mm::{
        cond_resched,
        fatal_signal_pending,
        may_warn,
        Charge,
        Owner,
        PinBatch,
        PinnedRun, //
    },
};

use crate::windows::{
    geometry::Span,
    SpanMemory, //
};

/// The maximum number of pages that one call pins.
const BATCH: usize = 2048;

/// The pinned memory of one window, and its charge to the locked memory of the process. Both are
/// released when this is dropped.
pub(crate) struct PinnedBlock {
    // Fields are dropped in order: the pages before the charge.
    run: PinnedRun,
    _charge: Charge,
}

impl PinnedBlock {
    /// Returns the physical address.
    pub(crate) fn phys(&self) -> u64 {
        // On a 32-bit machine a physical address may be wider than `usize`.
        (self.run.frame() as u64) << PAGE_SHIFT
    }

    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.run.count() as u64) << PAGE_SHIFT
    }

    /// Returns whether the pages are pinned for writing.
    pub(crate) fn is_write(&self) -> bool {
        self.run.is_write()
    }
}

/// Pins memory of the calling process starting at `vaddr`, for the windows of `span` in order.
///
/// # Errors
///
/// `EFAULT` if memory can't be pinned, or if the memory of a window isn't contiguous; `EINVAL` if
/// the memory of a window isn't aligned to its size; `ENOMEM` above the limit on locked memory;
/// `EINTR` if the task is being killed.
pub(crate) fn pin(span: Span, vaddr: usize, prot: Prot) -> Result<SpanMemory<PinnedBlock>> {
    let owner = Owner::current()?;
    let largest = if span.count > 1 {
        span.order
    } else {
        span.last_order
    };
    let mut batch = PinBatch::inline();
    batch.try_grow(BATCH.min(1 << (largest as usize - PAGE_SHIFT)));
    let mut at = vaddr;
    SpanMemory::new(span, prot, |order| {
        let pages = 1 << (order as usize - PAGE_SHIFT);
        let block = pin_block(&mut batch, &owner, at, pages, prot)?;
        at = at.wrapping_add(pages << PAGE_SHIFT);
        Ok(block)
    })
}

/// Pins one block of `pages` pages. `pages` is a power of two.
fn pin_block(
    batch: &mut PinBatch<'_>,
    owner: &Arc<Owner>,
    vaddr: usize,
    pages: usize,
    prot: Prot,
) -> Result<PinnedBlock> {
    let mut charge = Charge::new(owner.clone());
    charge.add(pages)?;
    let write = prot.contains(Access::Write);
    let mut run = next_run(batch, vaddr, pages, write)?;
    if run.frame() & (pages - 1) != 0 {
        return Err(unsuitable(vaddr, pages, EINVAL));
    }
    while run.count() < pages {
        if fatal_signal_pending() {
            return Err(EINTR);
        }
        cond_resched();
        let done = run.count();
        let next = next_run(batch, vaddr + done * PAGE_SIZE, pages - done, write)?;
        run.join(next, pages)
            .map_err(|_| unsuitable(vaddr, pages, EFAULT))?;
    }
    Ok(PinnedBlock {
        run,
        _charge: charge,
    })
}

/// Pins up to `limit` pages starting at `vaddr`. Stops where they are not contiguous.
fn next_run(
    batch: &mut PinBatch<'_>,
    vaddr: usize,
    limit: usize,
    write: bool,
) -> Result<PinnedRun> {
    let pinned = batch.fill(vaddr, limit, write)?;
    batch.take_run(pinned).ok_or(EFAULT)
}

/// Logs why a block can't be mapped, and the remedy. Returns `error`.
fn unsuitable(vaddr: usize, pages: usize, error: Error) -> Error {
    if may_warn() {
        pr_warn!(
            "cannot map memory at {:#x}: the {} KiB of a window must be physically contiguous and aligned to their size; use hugepages of at least this size\n",
            vaddr,
            pages << (PAGE_SHIFT - 10),
        );
    }
    error
}
