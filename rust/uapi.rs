// SPDX-License-Identifier: GPL-2.0

//! Structures of `<linux/vfio.h>` that are copied from and to userspace.

use kernel::transmute::{
    AsBytes,
    FromBytes, //
};

use crate::bindings;

// SAFETY: Integers without padding: every bit pattern is valid.
unsafe impl FromBytes for bindings::vfio_region_info {}
// SAFETY: As above: there are no uninitialised bytes.
unsafe impl AsBytes for bindings::vfio_region_info {}

// SAFETY: As above.
unsafe impl FromBytes for bindings::vfio_device_feature_dma_logging_control {}
// SAFETY: As above.
unsafe impl AsBytes for bindings::vfio_device_feature_dma_logging_control {}

// SAFETY: As above.
unsafe impl FromBytes for bindings::vfio_device_feature_dma_logging_report {}

// SAFETY: Integers and arrays of bytes without padding.
unsafe impl AsBytes for bindings::vfio_group_device {}
