// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/vfio.h`, for C drivers, backends and KVM.
//!
//! `exports.c` exports them in the same way as the kernel's own `vfio.ko`.

use core::{
    ptr::NonNull,
    sync::atomic::Ordering, //
};

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    fs::LocalFile,
    page::PAGE_SIZE,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iommu_driver::Ops,
    mm::may_warn,
    uapi::InfoCaps, //
};

use super::{
    device::{
        self,
        Device, //
    },
    device_set,
    iommu_driver,
    kvm::Kvm,
    registration::{
        self,
        Registered, //
    },
    virqfd, //
};
use crate::{
    backend,
    device::{
        file::file_device,
        registration::{
            register_emulated,
            register_physical,
            unregister, //
        }, //
    },
    group::{
        file_group,
        Translation, //
    },
    irq_set,
    migration::State, //
};

// --- Devices ----------------------------------------------------------------------------------

/// Allocates a driver's structure of `size` bytes, which begins with a `struct vfio_device`.
///
/// # Safety
///
/// `dev` and `ops` outlive the device.
#[no_mangle]
unsafe extern "C" fn _vfio_alloc_device(
    size: usize,
    dev: *mut bindings::device,
    ops: *const bindings::vfio_device_ops,
) -> *mut bindings::vfio_device {
    if size < core::mem::size_of::<bindings::vfio_device>() {
        return EINVAL.to_ptr();
    }
    let Ok(memory) = KVVec::<u8>::with_capacity(size, GFP_KERNEL | __GFP_ZERO) else {
        return ENOMEM.to_ptr();
    };
    let (memory, _, _) = memory.into_raw_parts();
    let device = memory.cast::<bindings::vfio_device>();
    // SAFETY: The memory is zeroed and large enough. The caller guarantees the rest.
    match unsafe { device::init(device, dev, ops) } {
        Ok(()) => device,
        Err(e) => {
            // SAFETY: This function owns the memory, and nothing refers to it.
            unsafe { bindings::kvfree(device.cast()) };
            e.to_ptr()
        }
    }
}

/// # Safety
///
/// `device` is from [`_vfio_alloc_device`] and not registered.
#[no_mangle]
unsafe extern "C" fn vfio_register_group_dev(device: *mut bindings::vfio_device) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Device::from_raw(device) };
    from_result(|| register_physical(device).map(|()| 0))
}

/// # Safety
///
/// As for [`vfio_register_group_dev`].
#[no_mangle]
unsafe extern "C" fn vfio_register_emulated_iommu_dev(device: *mut bindings::vfio_device) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Device::from_raw(device) };
    from_result(|| register_emulated(device).map(|()| 0))
}

/// # Safety
///
/// `device` is registered.
#[no_mangle]
unsafe extern "C" fn vfio_unregister_group_dev(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    unregister(unsafe { Device::from_raw(device) });
}

/// # Safety
///
/// `device` is allocated, and was registered at some time.
#[no_mangle]
unsafe extern "C" fn vfio_device_try_get_registration(device: *mut bindings::vfio_device) -> bool {
    // SAFETY: By this function's contract.
    let registered = unsafe { Device::from_raw(device) }.try_get_registration();
    registered.map(Registered::into_count).is_some()
}

/// # Safety
///
/// Each call pairs with one successful call of [`vfio_device_try_get_registration`].
#[no_mangle]
unsafe extern "C" fn vfio_device_put_registration(device: *mut bindings::vfio_device) {
    if let Some(device) = NonNull::new(device) {
        // SAFETY: By this function's contract.
        unsafe { registration::put(device.cast()) };
    }
}

/// # Safety
///
/// The driver is still setting up `device` and has not registered it yet.
#[no_mangle]
unsafe extern "C" fn vfio_assign_device_set(
    device: *mut bindings::vfio_device,
    set_id: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Device::from_raw(device) };
    from_result(|| device_set::assign(device, set_id as usize).map(|()| 0))
}

/// # Safety
///
/// `set` is valid and its lock is held.
#[no_mangle]
unsafe extern "C" fn vfio_device_set_open_count(set: *mut bindings::vfio_device_set) -> u32 {
    // SAFETY: By this function's contract.
    unsafe { device_set::open_count(set) }
}

/// # Safety
///
/// `set` is valid and its lock is held.
#[no_mangle]
unsafe extern "C" fn vfio_find_device_in_devset(
    set: *mut bindings::vfio_device_set,
    dev: *mut bindings::device,
) -> *mut bindings::vfio_device {
    // SAFETY: By this function's contract.
    unsafe { device_set::find(set, dev) }
}

/// # Safety
///
/// `device` and `next` are valid.
#[no_mangle]
unsafe extern "C" fn vfio_mig_get_next_state(
    device: *mut bindings::vfio_device,
    current: u32,
    target: u32,
    next: *mut u32,
) -> c_int {
    // SAFETY: By this function's contract.
    let flags = unsafe { (*device).migration_flags };
    let known =
        |number| State::from_number(number).filter(|&s| s == State::Error || s.supported(flags));
    from_result(|| {
        let Some(current) = known(current).filter(|&s| s != State::Error || flags == u32::MAX)
        else {
            if may_warn() {
                pr_warn!(
                    "a driver is in migration state {}, which it does not have\n",
                    current
                );
            }
            return Err(EINVAL);
        };
        let target = known(target).ok_or(EINVAL)?;
        let step = current.next(target, flags).ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        unsafe { *next = step as u32 };
        Ok(0)
    })
}

// --- Pages of userspace -----------------------------------------------------------------------

/// The maximum number of pages per pin or unpin call: `VFIO_PIN_PAGES_MAX_ENTRIES`.
const MAX_PAGES: c_int = (PAGE_SIZE / core::mem::size_of::<usize>()) as c_int;

/// Returns the address space of a device on behalf of its driver, or `None` if the device is not
/// open. Another device of its group may be open nevertheless.
///
/// # Safety
///
/// `device` is valid. If it is open, it stays open until this function returns.
unsafe fn translation(device: *mut bindings::vfio_device) -> Option<Translation> {
    // SAFETY: By this function's contract.
    let device = unsafe { Device::from_raw(device) };
    if device.open_count().load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: By this function's contract.
    unsafe { device.group_of_open() }?.translation()
}

/// # Safety
///
/// As for [`translation`]. `pages` has room for `npage` pointers.
#[no_mangle]
unsafe extern "C" fn vfio_pin_pages(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    npage: c_int,
    prot: c_int,
    pages: *mut *mut bindings::page,
) -> c_int {
    // SAFETY: By this function's contract.
    let unmaps = unsafe { Device::from_raw(device) }
        .ops()
        .dma_unmap
        .is_some();
    if pages.is_null() || npage == 0 || !unmaps {
        return EINVAL.to_errno();
    }
    // SAFETY: By this function's contract.
    let Some(Translation { iommu, group }) = (unsafe { translation(device) }) else {
        return EINVAL.to_errno();
    };
    if npage > MAX_PAGES {
        return E2BIG.to_errno();
    }
    // SAFETY: By this function's contract.
    unsafe { iommu.pin_pages(&group, iova, npage, prot, pages) }
}

/// # Safety
///
/// As for [`translation`].
#[no_mangle]
unsafe extern "C" fn vfio_unpin_pages(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    npage: c_int,
) {
    // SAFETY: By this function's contract.
    match unsafe { translation(device) } {
        Some(translation) if (1..=MAX_PAGES).contains(&npage) => {
            translation.iommu.unpin_pages(iova, npage)
        }
        Some(_) if may_warn() => pr_warn!("a driver unpins {} pages at once\n", npage),
        None if may_warn() => pr_warn!(
            "a driver unpins {} pages of a device that is not open\n",
            npage
        ),
        _ => {}
    }
}

/// # Safety
///
/// As for [`translation`]. `data` is a kernel buffer of `len` bytes.
#[no_mangle]
unsafe extern "C" fn vfio_dma_rw(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    data: *mut c_void,
    len: usize,
    write: bool,
) -> c_int {
    if data.is_null() || len == 0 {
        return EINVAL.to_errno();
    }
    // SAFETY: By this function's contract.
    match unsafe { translation(device) } {
        // SAFETY: By this function's contract.
        Some(translation) => unsafe { translation.iommu.dma_rw(iova, data, len, write) },
        None => EINVAL.to_errno(),
    }
}

// --- Files, for KVM and for drivers -----------------------------------------------------------

/// # Safety
///
/// `file` is valid for `'a`.
unsafe fn local<'a>(file: *mut bindings::file) -> &'a LocalFile {
    // SAFETY: By this function's contract.
    unsafe { LocalFile::from_raw_file(file) }
}

/// Only KVM on sPAPR uses this function. There is no sPAPR backend here, so it returns null.
#[no_mangle]
extern "C" fn vfio_file_iommu_group(_file: *mut bindings::file) -> *mut bindings::iommu_group {
    core::ptr::null_mut()
}

/// # Safety
///
/// `file` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_file_is_group(file: *mut bindings::file) -> bool {
    // SAFETY: By this function's contract.
    file_group(unsafe { local(file) }).is_some()
}

/// # Safety
///
/// `file` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_file_is_valid(file: *mut bindings::file) -> bool {
    // SAFETY: By this function's contract.
    let file = unsafe { local(file) };
    file_group(file).is_some() || file_device(file).is_some()
}

/// # Safety
///
/// `file` is valid and `device` is registered.
#[no_mangle]
unsafe extern "C" fn vfio_file_has_dev(
    file: *mut bindings::file,
    device: *mut bindings::vfio_device,
) -> bool {
    // SAFETY: By this function's contract.
    let (group, device) = unsafe { (file_group(local(file)), Device::from_raw(device)) };
    group.is_some_and(|group| device.is_in(group))
}

/// # Safety
///
/// `file` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_file_enforced_coherent(file: *mut bindings::file) -> bool {
    // SAFETY: By this function's contract.
    let file = unsafe { local(file) };
    if let Some(group) = file_group(file) {
        return group.enforces_coherency();
    }
    file_device(file).is_none_or(|device| {
        device.iommu_capable(bindings::iommu_cap_IOMMU_CAP_ENFORCE_CACHE_COHERENCY)
    })
}

/// # Safety
///
/// `file` is valid. `kvm` is null, or stays valid until this function is called again for the same
/// file.
#[no_mangle]
unsafe extern "C" fn vfio_file_set_kvm(file: *mut bindings::file, kvm: *mut bindings::kvm) {
    // SAFETY: By this function's contract.
    if let Some(group) = file_group(unsafe { local(file) }) {
        // SAFETY: By this function's contract. The next call replaces this value.
        group.set_kvm(unsafe { Kvm::new(kvm) });
    }
}

// --- Structures for userspace -----------------------------------------------------------------

/// # Safety
///
/// `caps` is valid, and only the caller uses it.
#[no_mangle]
unsafe extern "C" fn vfio_info_cap_add(
    caps: *mut bindings::vfio_info_cap,
    size: usize,
    id: u16,
    version: u16,
) -> *mut bindings::vfio_info_cap_header {
    // SAFETY: By this function's contract.
    let caps = unsafe { InfoCaps::from_raw(caps) };
    caps.add(id, version, size)
        .map_or_else(Error::to_ptr, |cap| cap.as_mut_ptr().cast())
}

/// # Safety
///
/// `caps` is valid, and only the caller uses it.
#[no_mangle]
unsafe extern "C" fn vfio_info_cap_shift(caps: *mut bindings::vfio_info_cap, offset: usize) {
    // SAFETY: By this function's contract.
    unsafe { InfoCaps::from_raw(caps) }.shift(offset);
}

/// # Safety
///
/// `caps` is valid, and only the caller uses it. `cap` points to a header followed by its content,
/// `size` bytes in total.
#[no_mangle]
unsafe extern "C" fn vfio_info_add_capability(
    caps: *mut bindings::vfio_info_cap,
    cap: *mut bindings::vfio_info_cap_header,
    size: usize,
) -> c_int {
    from_result(|| {
        let content = size
            .checked_sub(core::mem::size_of::<bindings::vfio_info_cap_header>())
            .ok_or(EINVAL)?;
        // SAFETY: By this function's contract `cap` has `size` bytes, and `add` makes room for as
        // many.
        unsafe {
            let added = InfoCaps::from_raw(caps).add((*cap).id, (*cap).version, size)?;
            let header = added.as_mut_ptr().cast::<bindings::vfio_info_cap_header>();
            core::ptr::copy_nonoverlapping(cap.add(1).cast::<u8>(), header.add(1).cast(), content);
        }
        Ok(0)
    })
}

/// # Safety
///
/// `header` is valid; `data_size` is valid or null.
#[no_mangle]
unsafe extern "C" fn vfio_set_irqs_validate_and_prepare(
    header: *mut bindings::vfio_irq_set,
    num_irqs: c_int,
    max_irq_type: c_int,
    data_size: *mut usize,
) -> c_int {
    // SAFETY: By this function's contract.
    let header = unsafe { &*header };
    let size = irq_set::data_size(header, num_irqs as u32, max_irq_type as u32);
    from_result(|| {
        let size = size.ok_or(EINVAL)?;
        if !data_size.is_null() {
            // SAFETY: By this function's contract.
            unsafe { *data_size = size };
        } else if irq_set::has_data(header) {
            return Err(EINVAL);
        }
        Ok(0)
    })
}

// --- Eventfds ---------------------------------------------------------------------------------

/// # Safety
///
/// `slot`, `opaque` and `data` stay valid until the virqfd is disabled.
#[no_mangle]
unsafe extern "C" fn vfio_virqfd_enable(
    opaque: *mut c_void,
    handler: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    thread: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
    data: *mut c_void,
    slot: *mut *mut bindings::virqfd,
    fd: c_int,
) -> c_int {
    let action = virqfd::Action {
        opaque,
        handler,
        thread,
        data,
    };
    // SAFETY: By this function's contract.
    from_result(|| unsafe { virqfd::enable(action, slot, fd) }.map(|()| 0))
}

/// # Safety
///
/// `slot` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_virqfd_disable(slot: *mut *mut bindings::virqfd) {
    // SAFETY: By this function's contract.
    unsafe { virqfd::disable(slot) }
}

/// # Safety
///
/// `slot` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_virqfd_flush_thread(slot: *mut *mut bindings::virqfd) {
    // SAFETY: By this function's contract.
    unsafe { virqfd::flush(slot) }
}

// --- Backends ---------------------------------------------------------------------------------

/// # Safety
///
/// `ops` stays valid until it is unregistered.
#[no_mangle]
unsafe extern "C" fn vfio_register_iommu_driver(ops: *const Ops) -> c_int {
    from_result(|| {
        let ops = NonNull::new(ops.cast_mut()).ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        backend::register(unsafe { iommu_driver::Registered::new(ops) }).map(|()| 0)
    })
}

/// # Safety
///
/// `ops` was registered.
#[no_mangle]
unsafe extern "C" fn vfio_unregister_iommu_driver(ops: *const Ops) {
    if let Some(ops) = NonNull::new(ops.cast_mut()) {
        // SAFETY: By this function's contract.
        backend::unregister(unsafe { iommu_driver::Registered::new(ops) });
    }
}

// --- Interval trees ---------------------------------------------------------------------------

/// Merges neighbouring ranges in a tree of `current` ranges until at most `wanted` remain.
///
/// # Safety
///
/// `root` is a valid tree that only the caller uses.
#[no_mangle]
unsafe extern "C" fn vfio_combine_iova_ranges(
    root: *mut bindings::rb_root_cached,
    current: u32,
    wanted: u32,
) {
    for _ in wanted.max(1)..current {
        // SAFETY: By this function's contract.
        let Some((left, right)) = (unsafe { closest_neighbours(root) }) else {
            if may_warn() {
                pr_warn!("a driver wants fewer ranges than its tree has neighbours\n");
            }
            return;
        };
        // SAFETY: Both nodes are in the tree. Extending a node to the end of its neighbour keeps
        // the order. The tree's cached interval ends are recomputed when the neighbour is removed.
        unsafe {
            (*left).last = (*right).last;
            bindings::interval_tree_remove(right, root);
        }
    }
}

/// Returns the first pair of neighbours with the smallest gap between them.
///
/// # Safety
///
/// As for [`vfio_combine_iova_ranges`].
unsafe fn closest_neighbours(
    root: *mut bindings::rb_root_cached,
) -> Option<(
    *mut bindings::interval_tree_node,
    *mut bindings::interval_tree_node,
)> {
    let mut closest = None;
    let mut smallest = usize::MAX;
    // SAFETY: By this function's contract.
    let mut left = unsafe { bindings::interval_tree_iter_first(root, 0, usize::MAX) };
    while !left.is_null() {
        // SAFETY: `left` is in the tree.
        let right = unsafe { bindings::interval_tree_iter_next(left, 0, usize::MAX) };
        if !right.is_null() {
            // SAFETY: Both are in the tree.
            let gap = unsafe { (*right).start.wrapping_sub((*left).last) };
            if gap < smallest {
                smallest = gap;
                closest = Some((left, right));
            }
        }
        left = right;
    }
    closest
}
