// SPDX-License-Identifier: GPL-2.0

//! Firmware nodes: lookups that `kernel::device::property` lacks, and software nodes for tests.
//!
//! C header: [`include/linux/property.h`](srctree/include/linux/property.h)

#[cfg(CONFIG_KUNIT)]
mod software;

use core::ptr::NonNull;

use kernel::{
    device::{
        property::FwNode,
        Device, //
    },
    error::from_err_ptr,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    bindings,
    iommu::raw_device, //
};

#[cfg(CONFIG_KUNIT)]
pub use software::{
    SoftwareNode,
    Value, //
};

/// Returns the C structure of a node.
fn raw(node: &FwNode) -> *mut bindings::fwnode_handle {
    // CAST: `FwNode` is a transparent wrapper of the C structure.
    core::ptr::from_ref(node).cast_mut().cast()
}

/// Returns the parent of `node`.
pub fn parent(node: &FwNode) -> Option<ARef<FwNode>> {
    // SAFETY: The node is valid.
    let parent = NonNull::new(unsafe { bindings::fwnode_get_parent(raw(node)) })?;
    // SAFETY: The function returned a counted reference, which the result takes over.
    Some(unsafe { ARef::from_raw(parent.cast()) })
}

/// Returns the node that property `name` of `node` refers to.
pub fn reference(node: &FwNode, name: &CStr) -> Option<ARef<FwNode>> {
    // SAFETY: The node and the name are valid.
    let found = unsafe { bindings::fwnode_find_reference(raw(node), name.as_char_ptr(), 0) };
    let found = NonNull::new(from_err_ptr(found).ok()?)?;
    // SAFETY: The function returned a counted reference, which the result takes over.
    Some(unsafe { ARef::from_raw(found.cast()) })
}

/// Returns the node of a processor, if the processor is present.
pub fn of_cpu(cpu: u32) -> Option<ARef<FwNode>> {
    // SAFETY: The function accepts any number.
    let dev = unsafe { bindings::get_cpu_device(cpu) };
    if dev.is_null() {
        return None;
    }
    // SAFETY: Devices of processors are static.
    let dev: &Device = unsafe { Device::from_raw(dev) };
    dev.fwnode().map(ARef::from)
}

/// Returns the physical address of memory resource `index` of the platform device with this node.
pub fn platform_memory(node: &FwNode, index: u32) -> Option<u64> {
    // SAFETY: The bus is static, and the match function only compares the address of the node.
    let dev = unsafe {
        bindings::bus_find_device(
            &raw const bindings::platform_bus_type,
            core::ptr::null_mut(),
            raw(node).cast(),
            Some(bindings::device_match_fwnode),
        )
    };
    // SAFETY: The function returned a counted reference, which the result takes over.
    let dev = unsafe { ARef::<Device>::from_raw(NonNull::new(dev)?.cast()) };
    // SAFETY: A device on the platform bus is the `dev` of a `platform_device`.
    let platform = unsafe {
        kernel::container_of!(
            core::ptr::from_ref(&*dev)
                .cast_mut()
                .cast::<bindings::device>(),
            bindings::platform_device,
            dev
        )
    };
    // SAFETY: The device is valid.
    let resource =
        unsafe { bindings::platform_get_resource(platform, bindings::IORESOURCE_MEM, index) };
    // SAFETY: The pointer is null, or a resource of the device, to which this function has a
    // reference.
    unsafe { resource.as_ref() }.map(|resource| resource.start)
}

/// Returns whether `dev` is a PCI device.
pub fn is_pci(dev: &Device) -> bool {
    // SAFETY: The device is valid.
    unsafe { bindings::kernel_ext_is_pci(raw_device(dev)) }
}

/// Returns the device of the PCI controller that a PCI device is behind, if that has one.
pub fn pci_controller(dev: &Device) -> Option<ARef<Device>> {
    // SAFETY: The device is valid.
    let controller = unsafe { bindings::kernel_ext_pci_controller(raw_device(dev)) };
    if controller.is_null() {
        return None;
    }
    // SAFETY: The device keeps its bus, which keeps the bridge at its root, which keeps its parent.
    let controller: &Device = unsafe { Device::from_raw(controller) };
    Some(controller.into())
}
