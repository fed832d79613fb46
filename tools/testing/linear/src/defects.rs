// SPDX-License-Identifier: GPL-2.0

//! The differences between the C modules and the strict model, and their causes.
//!
//! Each one is a defect of C, or an answer that the Rust modules intentionally give differently.
//! The models of C have just these; everything else is the same for both.

/// A known behaviour of C.
#[derive(Clone, Copy, Debug)]
pub struct Defect {
    /// Its name.
    pub name: &'static str,
    /// The behaviour and its cause.
    pub reason: &'static str,
    /// How this test handles it.
    pub here: &'static str,
}

/// All known defects of a container.
pub const DEFECTS: [Defect; 9] = [
    Defect {
        name: "an unmap of pinned pages takes several steps",
        reason: "vfio_dma_do_unmap() drops iommu->lock while it tells drivers to give a mapping's pages \
                 back, and starts again: what others map meanwhile goes too, and a range that others \
                 cut meanwhile makes it end half-way, with success.",
        here: "the model of C unmaps in steps, up to each mapping with pinned pages",
    },
    Defect {
        name: "two unmaps of pinned pages and a pin deadlock",
        reason: "The first holds device_list_lock and waits for the driver's lock, the driver waits for \
                 iommu->lock, the second unmap has that and waits for device_list_lock. A device that is \
                 opened or closed can be the second.",
        here: "where drivers pin, one thread alone unmaps, opens and closes",
    },
    Defect {
        name: "the machine stops after eleven pins",
        reason: "BUG_ON(++retries > 10) counts pages that the driver pins anew, at a program's wish.",
        here: "no round has more than nine pins",
    },
    Defect {
        name: "requests use a backend that was freed",
        reason: "vfio_fops_unl_ioctl() reads iommu_data without a lock or reference while the last group \
                 leaves.",
        here: "one group never leaves during a round",
    },
    Defect {
        name: "bits of a bitmap that stand for nothing",
        reason: "Where a mapping's bits don't begin with a word, update_user_bitmap() shifts its own copy \
                 and never clears what is behind the end; a later report has these bits.",
        here: "the model of C shifts as C does",
    },
    Defect {
        name: "a report that fails moves dirty bits",
        reason: "The copy that was shifted stays so when the bitmap can't be written.",
        here: "the model of C keeps it shifted",
    },
    Defect {
        name: "a group that joins pins the caller's pages",
        reason: "vfio_iommu_replay() pins what the calling process has at the addresses of another one. \
                 Ours fails with EPERM (Documentation/limits.rst).",
        here: "both processes have the same memory; the model of C lets the group join",
    },
    Defect {
        name: "a group that fails to join goes through giant mappings",
        reason: "What vfio_iommu_replay() has pinned it looks for page by page, in all mappings, with the \
                 container locked: for one of 2^44 bytes, in a container that had no IOMMU before, minutes.",
        here: "no mapping is so large",
    },
    Defect {
        name: "what a failed vfio_dma_rw() has written counts as clean",
        reason: "vfio_iommu_type1_dma_rw_chunk() marks pages as dirty only if all of them were copied.",
        here: "the model of C marks no page then",
    },
];

/// All known defects of device files, groups and iommufds.
pub const DEVICE_FILE_DEFECTS: [Defect; 3] = [
    Defect {
        name: "a group can be opened again while its device is open in an iommufd",
        reason: "The first open of a device takes a reference to the group's file only in a container \
                 (vfio_group_use_container()).",
        here: "in the model of C, only a device that is open in a container holds the group's file",
    },
    Defect {
        name: "a device is opened in an iommufd to which it is not bound",
        reason: "If the device is open already, vfio_df_open() counts the file, whatever iommufd or \
                 container the group is in now.",
        here: "the model of C counts the file",
    },
    Defect {
        name: "a group that leaves its iommufd while a device is open crashes the kernel",
        reason: "vfio_df_device_last_close() removes the device from the container that the group is in \
                 then, which the device has never joined.",
        here: "in a round, emulated groups are given either the container or iommufds",
    },
];

/// The rules by which answers are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Every request is atomic. An unmap does not include the pages that drivers unpin before it.
    Strict,
    /// The same rules with [`DEFECTS`].
    C,
}
