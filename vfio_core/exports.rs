// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/vfio.h`, for C drivers, IOMMU drivers and KVM.
//!
//! `exports.c` exports them in the same way as the kernel's own `vfio.ko`.

use core::ptr::NonNull;

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    fs::LocalFile,
    prelude::*, //
};
use kernel_ext::{
    bindings,
    iommu::Group as IommuGroup,
    iommu_driver::Ops,
    uapi::InfoCaps, //
};

use crate::{
    device::{
        self,
        dma,
        file::file_device,
        logging,
        registration::{
            self,
            Registered,
            RegistrationRef,
            Unregistered, //
        },
        set,
        Device, //
    },
    group::{
        file_group,
        registry::move_device, //
    },
    iommu_driver::{
        self,
        IommuDriver, //
    },
    irq_set,
    kvm::Kvm,
    migration,
    virqfd, //
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
    // SAFETY: By this function's contract.
    unsafe { device::alloc(size, dev, ops) }.map_or_else(Error::to_ptr, NonNull::as_ptr)
}

/// Registers a device whose DMA is confined by an IOMMU.
///
/// # Safety
///
/// `device` is from [`_vfio_alloc_device`] and not registered. The driver is bound to its parent.
#[no_mangle]
unsafe extern "C" fn vfio_register_group_dev(device: *mut bindings::vfio_device) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Unregistered::from_raw(device) };
    from_result(|| registration::register_physical(device).map(|()| 0))
}

/// Registers a device that does no DMA of its own.
///
/// # Safety
///
/// As for [`vfio_register_group_dev`].
#[no_mangle]
unsafe extern "C" fn vfio_register_emulated_iommu_dev(device: *mut bindings::vfio_device) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Unregistered::from_raw(device) };
    from_result(|| registration::register_emulated(device).map(|()| 0))
}

/// Unregisters a device. Waits until it has no users.
///
/// # Safety
///
/// `device` is registered.
#[no_mangle]
unsafe extern "C" fn vfio_unregister_group_dev(device: *mut bindings::vfio_device) {
    // SAFETY: By this function's contract.
    registration::unregister(unsafe { Registered::from_raw(device) });
}

/// Moves `device` to the software group `group`, or to one of its own: see
/// `include/linux/vfio_group.h`.
///
/// # Safety
///
/// `device` is registered, and is not unregistered during the call. `group` is null or valid.
/// `commit` can be called with `data`.
#[no_mangle]
unsafe extern "C" fn vfio_move_device(
    device: *mut bindings::vfio_device,
    group: *mut bindings::iommu_group,
    commit: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let device = unsafe { Registered::from_raw(device) };
    // SAFETY: By this function's contract.
    let group = (!group.is_null()).then(|| unsafe { IommuGroup::from_ptr(group) });
    // SAFETY: By this function's contract.
    let commit = || unsafe { commit(data) };
    from_result(|| move_device(&device, group, commit).map(|()| 0))
}

/// Keeps a device registered. Returns false if its registration has ended.
///
/// # Safety
///
/// `device` is allocated, and was registered at some time.
#[no_mangle]
unsafe extern "C" fn vfio_device_try_get_registration(device: *mut bindings::vfio_device) -> bool {
    // SAFETY: By this function's contract.
    let registration = unsafe { Device::from_raw(device) }.try_get_registration();
    registration.map(RegistrationRef::into_count).is_some()
}

/// Undoes [`vfio_device_try_get_registration`].
///
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

/// Adds a device to the set `set_id`.
///
/// # Safety
///
/// The driver is still setting up `device` and has not registered it yet.
#[no_mangle]
unsafe extern "C" fn vfio_assign_device_set(
    device: *mut bindings::vfio_device,
    set_id: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let mut device = unsafe { Unregistered::from_raw(device) };
    from_result(|| set::assign(&mut device, set_id as usize).map(|()| 0))
}

/// Returns the number of open files of all devices in a set.
///
/// # Safety
///
/// `set` is valid and its lock is held.
#[no_mangle]
unsafe extern "C" fn vfio_device_set_open_count(set: *mut bindings::vfio_device_set) -> u32 {
    // SAFETY: By this function's contract.
    unsafe { set::open_count(set) }
}

/// Returns the device of `dev` in a set, or null.
///
/// # Safety
///
/// `set` is valid and its lock is held.
#[no_mangle]
unsafe extern "C" fn vfio_find_device_in_devset(
    set: *mut bindings::vfio_device_set,
    dev: *mut bindings::device,
) -> *mut bindings::vfio_device {
    // SAFETY: By this function's contract.
    unsafe { set::find(set, dev) }
}

/// Stores in `next` the next migration state on the path from `current` to `target`.
///
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
    from_result(|| {
        let state = migration::next_state(flags, current, target)?;
        // SAFETY: By this function's contract.
        unsafe { *next = state };
        Ok(0)
    })
}

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
    // SAFETY: By this function's contract.
    unsafe { logging::combine_ranges(root, current, wanted) }
}

// --- Memory of userspace ----------------------------------------------------------------------

/// Pins `npage` pages starting at `iova`, and stores them in `pages`. Returns their number or an
/// errno.
///
/// # Safety
///
/// `device` is valid. If it is open, it stays open until this function returns. `pages` has room
/// for `npage` pointers.
#[no_mangle]
unsafe extern "C" fn vfio_pin_pages(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    npage: c_int,
    prot: c_int,
    pages: *mut *mut bindings::page,
) -> c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { dma::pin_pages(Device::from_raw(device), iova, npage, prot, pages) })
}

/// Unpins `npage` pages starting at `iova`.
///
/// # Safety
///
/// `device` is valid. If it is open, it stays open until this function returns.
#[no_mangle]
unsafe extern "C" fn vfio_unpin_pages(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    npage: c_int,
) {
    // SAFETY: By this function's contract.
    unsafe { dma::unpin_pages(Device::from_raw(device), iova, npage) }
}

/// Copies between a kernel buffer and the memory that userspace mapped at `iova`.
///
/// # Safety
///
/// `device` is valid. If it is open, it stays open until this function returns. `data` is a kernel
/// buffer of `len` bytes.
#[no_mangle]
unsafe extern "C" fn vfio_dma_rw(
    device: *mut bindings::vfio_device,
    iova: bindings::dma_addr_t,
    data: *mut c_void,
    len: usize,
    write: bool,
) -> c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { dma::dma_rw(Device::from_raw(device), iova, data, len, write) })
}

// --- Files, for KVM and for drivers -----------------------------------------------------------

/// # Safety
///
/// `file` is valid for `'a`.
unsafe fn local<'a>(file: *mut bindings::file) -> &'a LocalFile {
    // SAFETY: By this function's contract.
    unsafe { LocalFile::from_raw_file(file) }
}

/// Only KVM on sPAPR uses this function. There is no sPAPR IOMMU driver here, so it returns null.
#[no_mangle]
extern "C" fn vfio_file_iommu_group(_file: *mut bindings::file) -> *mut bindings::iommu_group {
    core::ptr::null_mut()
}

/// Returns whether `file` is a group's file.
///
/// # Safety
///
/// `file` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_file_is_group(file: *mut bindings::file) -> bool {
    // SAFETY: By this function's contract.
    file_group(unsafe { local(file) }).is_some()
}

/// Returns whether `file` is the file of a group or of a device.
///
/// # Safety
///
/// `file` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_file_is_valid(file: *mut bindings::file) -> bool {
    // SAFETY: By this function's contract.
    let file = unsafe { local(file) };
    file_group(file).is_some() || file_device(file).is_some()
}

/// Returns whether `file` is the file of the device's group.
///
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

/// Returns whether the IOMMU can enforce cache coherency for the group or the device of `file`.
/// Returns true for any other file.
///
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

/// Associates the group of `file`, or the device file, with a KVM instance, or removes the
/// association. Does nothing for any other file.
///
/// # Safety
///
/// `file` is valid. `kvm` is null, or stays valid until this function is called again for the same
/// file.
#[no_mangle]
unsafe extern "C" fn vfio_file_set_kvm(file: *mut bindings::file, kvm: *mut bindings::kvm) {
    // SAFETY: By this function's contract.
    let file = unsafe { local(file) };
    // SAFETY: By this function's contract. The next call replaces this value.
    let kvm = unsafe { Kvm::new(kvm) };
    if let Some(group) = file_group(file) {
        return group.set_kvm(kvm);
    }
    device::cdev::set_kvm(file, kvm);
}

// --- Structures for userspace -----------------------------------------------------------------

/// Adds a capability of `size` bytes to a chain. Returns its header, or an `ERR_PTR`.
///
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

/// Adds `offset` to the offsets in a chain.
///
/// # Safety
///
/// `caps` is valid, and only the caller uses it.
#[no_mangle]
unsafe extern "C" fn vfio_info_cap_shift(caps: *mut bindings::vfio_info_cap, offset: usize) {
    // SAFETY: By this function's contract.
    unsafe { InfoCaps::from_raw(caps) }.shift(offset);
}

/// Adds a copy of the capability `cap` to a chain.
///
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

/// Checks a `VFIO_DEVICE_SET_IRQS` request, and stores the size of its data in `data_size`.
///
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

/// Calls the driver's functions when the eventfd `fd` is signalled, and stores the virqfd in
/// `slot`.
///
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

/// Disables the virqfd in `slot`, and waits until it is freed.
///
/// # Safety
///
/// `slot` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_virqfd_disable(slot: *mut *mut bindings::virqfd) {
    // SAFETY: By this function's contract.
    unsafe { virqfd::disable(slot) }
}

/// Waits until the thread function of the virqfd in `slot` has returned.
///
/// # Safety
///
/// `slot` is valid.
#[no_mangle]
unsafe extern "C" fn vfio_virqfd_flush_thread(slot: *mut *mut bindings::virqfd) {
    // SAFETY: By this function's contract.
    unsafe { virqfd::flush(slot) }
}

// --- IOMMU drivers ----------------------------------------------------------------------------

/// Registers an IOMMU driver. Containers try the most recent one first.
///
/// # Safety
///
/// `ops` stays valid until it is unregistered.
#[no_mangle]
unsafe extern "C" fn vfio_register_iommu_driver(ops: *const Ops) -> c_int {
    from_result(|| {
        let ops = NonNull::new(ops.cast_mut()).ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        iommu_driver::register(unsafe { IommuDriver::new(ops) }).map(|()| 0)
    })
}

/// Unregisters the IOMMU driver with the table `ops`, if it is registered.
#[no_mangle]
extern "C" fn vfio_unregister_iommu_driver(ops: *const Ops) {
    iommu_driver::unregister(ops);
}
