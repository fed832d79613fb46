// SPDX-License-Identifier: GPL-2.0

//! Validation of `VFIO_DEVICE_SET_IRQS` requests.

use core::mem::size_of;

use kernel_ext::{
    bindings::{
        self,
        vfio_irq_set, //
    },
    uapi::Argument, //
};

const DATA_MASK: u32 = bindings::VFIO_IRQ_SET_DATA_TYPE_MASK;
const ACTION_MASK: u32 = bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK;

/// Returns the size in bytes of the data that follows `header`. `types` is the number of interrupt
/// types of the device, `vectors` the number of vectors of the requested type. Returns `None` if
/// the request is malformed.
pub(crate) fn data_size(header: &vfio_irq_set, vectors: u32, types: u32) -> Option<usize> {
    let room = (header.argsz as usize).checked_sub(vfio_irq_set::MIN_SIZE)?;
    if header.index >= types
        || header.count >= u32::MAX - header.start
        || header.flags & !(DATA_MASK | ACTION_MASK) != 0
        || header.start >= vectors
        || header.start + header.count > vectors
    {
        return None;
    }
    let each = match header.flags & DATA_MASK {
        bindings::VFIO_IRQ_SET_DATA_NONE => 0,
        bindings::VFIO_IRQ_SET_DATA_BOOL => size_of::<u8>(),
        bindings::VFIO_IRQ_SET_DATA_EVENTFD => size_of::<i32>(),
        _ => return None,
    };
    let size = header.count as usize * each;
    (room >= size).then_some(size)
}

/// Returns whether the request has a data type other than `VFIO_IRQ_SET_DATA_NONE`.
pub(crate) fn has_data(header: &vfio_irq_set) -> bool {
    header.flags & DATA_MASK != bindings::VFIO_IRQ_SET_DATA_NONE
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_irq_set)]
mod tests {
    use super::*;

    const GOOD: vfio_irq_set = vfio_irq_set {
        argsz: 20,
        flags: bindings::VFIO_IRQ_SET_DATA_NONE | bindings::VFIO_IRQ_SET_ACTION_TRIGGER,
        index: 1,
        start: 0,
        count: 4,
        data: bindings::__IncompleteArrayField::new(),
    };

    #[test]
    fn set_irqs_data_types() {
        for flags in 0..64 {
            let header = vfio_irq_set {
                argsz: 20 + 16,
                flags,
                ..GOOD
            };
            let expected = match flags & 7 {
                1 => Some(0),
                2 => Some(4),
                4 => Some(16),
                _ => None,
            };
            assert_eq!(data_size(&header, 4, 2), expected);
        }
        let unknown = vfio_irq_set {
            flags: 1 << 6,
            ..GOOD
        };
        assert_eq!(data_size(&unknown, 4, 2), None);
    }

    #[test]
    fn set_irqs_argsz() {
        for argsz in 0..64 {
            let none = vfio_irq_set { argsz, ..GOOD };
            assert_eq!(data_size(&none, 4, 2).is_some(), argsz >= 20);
            let fds = vfio_irq_set {
                argsz,
                flags: bindings::VFIO_IRQ_SET_DATA_EVENTFD,
                ..GOOD
            };
            assert_eq!(data_size(&fds, 4, 2).is_some(), argsz >= 36);
        }
    }

    #[test]
    fn set_irqs_start_and_count() {
        let edges = [0, 1, 3, 4, 5, u32::MAX / 2, u32::MAX - 1, u32::MAX];
        for start in edges {
            for count in edges {
                let header = vfio_irq_set {
                    start,
                    count,
                    ..GOOD
                };
                let fits = u64::from(start) + u64::from(count) <= 4 && start < 4;
                assert_eq!(data_size(&header, 4, 2).is_some(), fits);
            }
        }
        for index in 0..4 {
            let header = vfio_irq_set { index, ..GOOD };
            assert_eq!(data_size(&header, 4, 2).is_some(), index < 2);
        }
    }
}
