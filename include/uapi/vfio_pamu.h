/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Containers for Freescale's PAMU: one aperture, divided into a power of two of windows. A window
 * maps one physically contiguous block, one MSI bank, or nothing.
 *
 * Names, numbers and layouts are those of the vendor's 2013 kernel, except the extension, because 2
 * and 7 are in use today. See Documentation/pamu.rst.
 *
 * All structures begin with argsz, the size of the structure, and flags; flags that are not defined
 * must be zero. The layout is the same for 32-bit and 64-bit programs.
 */
#ifndef VFIO_PAMU_H
#define VFIO_PAMU_H

#include <linux/types.h>
#include <linux/vfio.h>

/* The extension, for VFIO_CHECK_EXTENSION and VFIO_SET_IOMMU. */
#define VFIO_FSL_PAMU_IOMMU	1000

/* --- Attributes of the address space ----------------------------------------------------------- */

/*
 * The device addresses from aperture_start to aperture_end, inclusive. The size is a power of two, at
 * least 4 KiB, and the start a multiple of it.
 *
 * Set: allowed while nothing is mapped; the windows must be set again afterwards.
 * Get: the value that was set, or 0 to 2^36 - 1.
 */
#define VFIO_ATTR_GEOMETRY	0
struct vfio_pamu_geo_attr {
	__u64	aperture_start;
	__u64	aperture_end;
};

/*
 * The number of windows, a power of two. Each window has at least 4 KiB. Set the geometry first.
 *
 * Get: the value that was set, or the maximum.
 */
#define VFIO_ATTR_WINDOWS	1

/*
 * The cache that devices write to: level 1 to 3 (cache) of a CPU. Set the windows first.
 *
 * Get: the value that was set, or zeroes.
 */
#define VFIO_ATTR_PAMU_STASH	2
struct vfio_pamu_stash {
	__u32	cpu;
	__u32	cache;
};

/*
 * Selects how MSI banks are mapped. EXPLICIT (default): by userspace. IMPLICIT: by the kernel, all
 * banks in order at the last windows, when the first memory is mapped; unmapped after the last. Can
 * be set while nothing is mapped.
 */
#define VFIO_ATTR_PAMU_MSI	256
#define VFIO_PAMU_MSI_EXPLICIT	0
#define VFIO_PAMU_MSI_IMPLICIT	1

struct vfio_pamu_attr {
	__u32	argsz;
	__u32	flags;		/* none */
	__u32	attribute;	/* VFIO_ATTR_* */
	__u32	__pad;
	union {
		struct vfio_pamu_geo_attr	attr;
		__u32				windows;
		struct vfio_pamu_stash		stash;
		__u32				msi;	/* VFIO_PAMU_MSI_* */
	} attr_info;
};

/*
 * VFIO_IOMMU_PAMU_GET_ATTR - _IO(VFIO_TYPE, VFIO_BASE + 15, struct vfio_pamu_attr)
 * VFIO_IOMMU_PAMU_SET_ATTR - _IO(VFIO_TYPE, VFIO_BASE + 16, struct vfio_pamu_attr)
 *
 * Errors: EFAULT; EINVAL for a short argsz, flags, an unknown attribute, a value out of range or
 * out of order; EBUSY if mappings would be lost; ENOSPC if the table has too few free entries;
 * ENOMEM. Nothing changes on error.
 */
#define VFIO_IOMMU_PAMU_GET_ATTR	_IO(VFIO_TYPE, VFIO_BASE + 15)
#define VFIO_IOMMU_PAMU_SET_ATTR	_IO(VFIO_TYPE, VFIO_BASE + 16)

/* --- Memory ------------------------------------------------------------------------------------ */

/*
 * VFIO_IOMMU_MAP_DMA with struct vfio_iommu_type1_dma_map
 *
 * iova is the start of a window. size covers whole windows, except that the last may be mapped in
 * part: a power of two of at least 4 KiB. The memory of each window must be physically contiguous
 * and aligned to its mapped size (use hugepages). Flags are VFIO_DMA_MAP_FLAG_READ and _WRITE, at
 * least one.
 *
 * Errors: EFAULT if memory cannot be pinned or is not contiguous; EINVAL if it is not aligned, if
 * iova or size is invalid, or if no windows are set; EEXIST if a window is in use; EBUSY if the
 * windows were changed concurrently; ENOMEM, also above RLIMIT_MEMLOCK. Nothing is mapped on error.
 *
 * Memory from a file of VFIO_GROUP_GET_MSI_FD maps banks, one a window, 4 KiB each.
 *
 * VFIO_IOMMU_UNMAP_DMA with struct vfio_iommu_type1_dma_unmap
 *
 * Unmaps all memory and banks in the range. The range must not cut the mapped part of a window. No
 * flags. On return, size is the number of bytes unmapped.
 *
 * Errors: EFAULT, EINVAL; EBUSY if a bank is in use. Nothing is unmapped then.
 */

/*
 * VFIO_IOMMU_MAP_DMA flag: maps MSI banks. vaddr must be 0; size covers one window per bank. The
 * kernel uses unmapped banks, lowest number first; see VFIO_IOMMU_PAMU_GET_WINDOW.
 *
 * Errors: also ENOSPC if too few banks are left.
 */
#define VFIO_DMA_MAP_FLAG_MSI	(1 << 8)

/* --- MSI banks --------------------------------------------------------------------------------- */

/*
 * VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT - _IO(VFIO_TYPE, VFIO_BASE + 17)
 *
 * Returns the number of MSI banks.
 */
#define VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT	_IO(VFIO_TYPE, VFIO_BASE + 17)

/*
 * VFIO_IOMMU_PAMU_MAP_MSI_BANK - _IO(VFIO_TYPE, VFIO_BASE + 18, struct vfio_pamu_msi_bank_map)
 *
 * Maps the page with the doorbell of a bank at the start of a window. flags are
 * VFIO_DMA_MAP_FLAG_READ and _WRITE, at least one; a doorbell needs WRITE.
 *
 * Errors: EFAULT; ENODEV for an unknown bank; EINVAL if iova is not the start of a window, or if
 * the kernel maps the banks; EEXIST if the window is in use or the bank is mapped already.
 */
struct vfio_pamu_msi_bank_map {
	__u32	argsz;
	__u32	flags;
	__u32	msi_bank_index;
	__u32	__pad;
	__u64	iova;
};
#define VFIO_IOMMU_PAMU_MAP_MSI_BANK	_IO(VFIO_TYPE, VFIO_BASE + 18)

/*
 * VFIO_IOMMU_PAMU_UNMAP_MSI_BANK - _IO(VFIO_TYPE, VFIO_BASE + 19, struct vfio_pamu_msi_bank_unmap)
 *
 * Errors: EFAULT; EINVAL if no bank is mapped there, or the kernel maps the banks; EBUSY while a
 * device's interrupts go there.
 */
struct vfio_pamu_msi_bank_unmap {
	__u32	argsz;
	__u32	flags;		/* none */
	__u64	iova;
};
#define VFIO_IOMMU_PAMU_UNMAP_MSI_BANK	_IO(VFIO_TYPE, VFIO_BASE + 19)

/*
 * VFIO_GROUP_GET_MSI_FD - _IO(VFIO_TYPE, 0x50)
 *
 * On a group's file, or on its container's: returns a file descriptor (O_CLOEXEC). Page n of the
 * file represents bank n: mmap() it and pass the address to VFIO_IOMMU_MAP_DMA. Access by the
 * process raises SIGBUS, because a write to a doorbell could raise interrupts of other users.
 *
 * Errors: EINVAL for a group without an address space; ENOTTY for one without banks; EMFILE, ENOMEM.
 */
#define VFIO_GROUP_GET_MSI_FD	_IO(VFIO_TYPE, 0x50)

/* --- Windows ----------------------------------------------------------------------------------- */

/*
 * VFIO_IOMMU_PAMU_GET_WINDOW - _IO(VFIO_TYPE, 0x51, struct vfio_pamu_window)
 *
 * Returns what is mapped at a window. flags must be zero; on return they are VFIO_PAMU_WINDOW_*.
 *
 * Errors: EFAULT; EINVAL if there is no such window.
 */
struct vfio_pamu_window {
	__u32	argsz;
	__u32	flags;
#define VFIO_PAMU_WINDOW_READ		(1 << 0)	/* devices may read */
#define VFIO_PAMU_WINDOW_WRITE		(1 << 1)	/* devices may write */
#define VFIO_PAMU_WINDOW_MEMORY		(1 << 2)	/* memory is mapped */
#define VFIO_PAMU_WINDOW_MSI		(1 << 3)	/* a bank is mapped */
#define VFIO_PAMU_WINDOW_IMPLICIT	(1 << 4)	/* by the kernel */
	__u32	window;		/* in: index of the window */
	__u32	bank;		/* the bank; ~0 if none */
	__u64	iova;		/* where the window starts */
	__u64	size;		/* mapped bytes; 0 if the window is free */
	__u64	paddr;		/* the physical address; zero without CAP_SYS_ADMIN */
};
#define VFIO_IOMMU_PAMU_GET_WINDOW	_IO(VFIO_TYPE, 0x51)

/* --- Violations -------------------------------------------------------------------------------- */

/*
 * An invalid access disables the LIODN of the device until it is revived.
 *
 * VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD - _IO(VFIO_TYPE, 0x52, __s32)
 *
 * Sets the eventfd that each violation signals; the argument points to it; -1 removes it.
 *
 * Errors: EFAULT; EBADF, EINVAL for no eventfd.
 */
#define VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD	_IO(VFIO_TYPE, 0x52)

/*
 * VFIO_IOMMU_PAMU_GET_VIOLATION - _IO(VFIO_TYPE, 0x53, struct vfio_pamu_violation)
 *
 * Returns the violation of the lowest disabled LIODN that is at least liodn. It is kept until the
 * LIODN is revived or leaves the container. flags must be zero.
 *
 * Errors: EFAULT, EINVAL; ENOENT if none is disabled.
 */
struct vfio_pamu_violation {
	__u32	argsz;
	__u32	flags;
	__u32	liodn;		/* in: first LIODN to report; out: the device's LIODN */
	__u32	status;		/* AVS1: what kind of violation */
	__u64	iova;		/* the address */
};
#define VFIO_IOMMU_PAMU_GET_VIOLATION	_IO(VFIO_TYPE, 0x53)

/*
 * VFIO_IOMMU_PAMU_REVIVE - _IO(VFIO_TYPE, 0x54, __u32)
 *
 * Enables a LIODN again; the argument points to its number. Reset the device first.
 *
 * Errors: EFAULT; ENODEV if it is not in the container; EINVAL if no violation disabled it.
 */
#define VFIO_IOMMU_PAMU_REVIVE	_IO(VFIO_TYPE, 0x54)

#endif /* VFIO_PAMU_H */
