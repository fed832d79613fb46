// SPDX-License-Identifier: GPL-2.0

//! The models, as tests.

/// Each request with itself and with all that follow it.
macro_rules! pairs {
    () => {};
    ($name:ident: $request:expr, $($other:ident: $others:expr,)*) => {
        mod $name {
            use crate::{
                iova::Range,
                scenarios::pair,
                type1::Request::*, //
            };

            #[test]
            fn $name() {
                pair($request, $request);
            }

            $(
                #[test]
                fn $other() {
                    pair($request, $others);
                }
            )*
        }

        pairs!($($other: $others,)*);
    };
}

mod pairs {
    pairs! {
        map: Map(Range { start: 3, last: 3 }),
        map_over: Map(Range { start: 2, last: 3 }),
        change_vaddr: ChangeVaddr(Range { start: 2, last: 2 }),
        unmap: Unmap(Range { start: 0, last: 2 }),
        unmap_one: Unmap(Range { start: 2, last: 2 }),
        unmap_part: Unmap(Range { start: 1, last: 2 }),
        unmap_all: UnmapAll,
        unmap_dirty: UnmapDirty(Range { start: 0, last: 3 }),
        invalidate: Invalidate(Range { start: 0, last: 1 }),
        report: Report(Range { start: 0, last: 2 }),
        start_tracking: StartTracking,
        stop_tracking: StopTracking,
        attach: Attach,
        attach_in_vain: AttachInVain,
        detach: Detach,
        attach_emulated: AttachEmulated,
        detach_emulated: DetachEmulated,
        pin: Pin(Range { start: 1, last: 1 }),
        pin_more: Pin(Range { start: 0, last: 2 }),
        unpin: Unpin(Range { start: 2, last: 2 }),
        read: Read(Range { start: 1, last: 2 }),
        write: Write(Range { start: 1, last: 1 }),
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                crate::scenarios::$name();
            }
        )*
    };
}

scenarios! {
    threes_behind_an_iommu
    threes_with_an_emulated_device
    unmap_all_and_others_in_their_own_ranges
    unmap_all_twice_and_map
    report_and_maps_across_its_border
    unmap_with_bitmap_and_maps_across_its_border
    unmap_all_of_what_is_pinned
    unmap_of_what_a_driver_keeps
    unmap_while_a_device_is_at_work
    unmap_of_what_is_replaced
    invalidate_and_attach_emulated
    invalidate_and_pin
    unmap_pin_and_attach
    unmap_pin_and_detach
    pin_in_a_mapping_that_grows
    maps_at_the_limit
    readers_and_unmap
    without_memory
    chain
    nobody_overtakes
    a_killed_request_leaves
    sharers_go_together
    others_go_alone
    disjoint_requests_go_together
}
