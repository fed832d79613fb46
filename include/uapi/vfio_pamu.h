/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Containers whose IOMMU is a Freescale PAMU: one aperture, a power-of-two number of windows in it, and
 * in each window nothing, one physically contiguous block of memory, or one bank of MSI doorbells.
 *
 * Names, numbers, attributes and offsets are those of the vendor's kernel of 2013, but for the extension:
 * its 2 and 7 belong to others today. See Documentation/pamu.rst.
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
 * Set: it can be set anew while nothing is mapped, and then the windows have to be set again.
 * Get: what was set, else 0 to 2^36 - 1.
 */
#define VFIO_ATTR_GEOMETRY	0
struct vfio_pamu_geo_attr {
	__u64	aperture_start;
	__u64	aperture_end;
};

/*
 * Into how many windows of equal size the aperture is divided: a power of two, so that a window has
 * at least 4 KiB. Only after the geometry.
 *
 * Get: what was set, else the most that can be set.
 */
#define VFIO_ATTR_WINDOWS	1

/*
 * Which cache devices write to: level 1 to 3 (cache) of a CPU. Only after the windows, at any time
 * from then on.
 *
 * Get: what was set, else zeroes.
 */
#define VFIO_ATTR_PAMU_STASH	2
struct vfio_pamu_stash {
	__u32	cpu;
	__u32	cache;
};

/*
 * Who maps the MSI banks. EXPLICIT (the default): the program does. IMPLICIT: the kernel maps all banks,
 * in order, at the last windows of the aperture together with the first memory that is mapped, and
 * unmaps them after the last. Can be set while nothing is mapped.
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
 * Errors: EFAULT; EINVAL for a short argsz, flags, an unknown attribute, a value out of range or out of
 * order; EBUSY if something is mapped which the new value would lose; ENOSPC if the table of the
 * hardware has no room for so many windows, ENOMEM. A value that is refused changes nothing.
 */
#define VFIO_IOMMU_PAMU_GET_ATTR	_IO(VFIO_TYPE, VFIO_BASE + 15)
#define VFIO_IOMMU_PAMU_SET_ATTR	_IO(VFIO_TYPE, VFIO_BASE + 16)

/* --- Memory ------------------------------------------------------------------------------------ */

/*
 * VFIO_IOMMU_MAP_DMA with struct vfio_iommu_type1_dma_map
 *
 * iova is the start of a window. The size is as many whole windows as are to be mapped, of which the last
 * one may be mapped in part: a power of two, at least 4 KiB, from the window's start. The memory of each
 * window is physically contiguous and starts at a multiple of what is mapped there: hugepages. Flags are
 * VFIO_DMA_MAP_FLAG_READ and _WRITE, at least one.
 *
 * Errors: EFAULT for memory that can't be pinned or isn't contiguous; EINVAL for memory that starts in the
 * wrong place, iova or size as above, outside of the aperture, before the windows were set; EEXIST
 * if one of the windows is in use; EBUSY if another thread changed the windows meanwhile; ENOMEM above
 * RLIMIT_MEMLOCK. Nothing is mapped then.
 *
 * Memory from a file of VFIO_GROUP_GET_MSI_FD maps banks, one a window, 4 KiB each.
 *
 * VFIO_IOMMU_UNMAP_DMA with struct vfio_iommu_type1_dma_unmap
 *
 * Unmaps all windows that are mapped between iova and iova + size, memory and banks. Both ends
 * leave no window mapped in part. No flags. The size becomes the number of bytes that were mapped.
 *
 * Errors: EFAULT, EINVAL; EBUSY if a bank is in use. Nothing is unmapped then.
 */

/*
 * A flag of VFIO_IOMMU_MAP_DMA: maps MSI banks, not memory. vaddr is zero; size is as many windows as
 * there are banks to map. The kernel takes banks that are not mapped yet, lowest number first;
 * VFIO_IOMMU_PAMU_GET_WINDOW tells which.
 *
 * Errors: also ENOSPC if so many banks are not left.
 */
#define VFIO_DMA_MAP_FLAG_MSI	(1 << 8)

/* --- MSI banks --------------------------------------------------------------------------------- */

/*
 * VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT - _IO(VFIO_TYPE, VFIO_BASE + 17)
 *
 * Returns how many banks there are, hence how many windows to leave free for them.
 */
#define VFIO_IOMMU_PAMU_GET_MSI_BANK_COUNT	_IO(VFIO_TYPE, VFIO_BASE + 17)

/*
 * VFIO_IOMMU_PAMU_MAP_MSI_BANK - _IO(VFIO_TYPE, VFIO_BASE + 18, struct vfio_pamu_msi_bank_map)
 *
 * Maps the page with the doorbell of a bank at the start of a window. flags are
 * VFIO_DMA_MAP_FLAG_READ and _WRITE, at least one; a doorbell needs WRITE.
 *
 * Errors: EFAULT; ENODEV for an unknown bank; EINVAL for no window's start, or if the kernel maps the
 * banks; EEXIST if the window is in use or the bank is mapped already.
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
 * VFIO_GROUP_GET_MSI_FD - _IO(VFIO_TYPE, VFIO_BASE + 80)
 *
 * On a group's file, or on its container's: returns a file descriptor (close-on-exec), whose page number n
 * stands for bank n. Mapped into the program by mmap() it can be mapped for devices by
 * VFIO_IOMMU_MAP_DMA. The program itself can't access it: that raises SIGBUS, since whoever writes to a
 * doorbell raises other people's interrupts.
 *
 * Errors: EINVAL for a group without an address space; ENOTTY for one without banks; EMFILE, ENOMEM.
 */
#define VFIO_GROUP_GET_MSI_FD	_IO(VFIO_TYPE, VFIO_BASE + 80)

/* --- What is where ----------------------------------------------------------------------------- */

/*
 * VFIO_IOMMU_PAMU_GET_WINDOW - _IO(VFIO_TYPE, VFIO_BASE + 81, struct vfio_pamu_window)
 *
 * Tells what is in a window. flags must be zero; in the answer they are VFIO_PAMU_WINDOW_*.
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
	__u32	window;		/* in: its number, from 0 on */
	__u32	bank;		/* the bank; ~0 if none */
	__u64	iova;		/* where the window starts */
	__u64	size;		/* how much is mapped from there on; zero if the window is free */
	__u64	paddr;		/* the physical address; zero without CAP_SYS_ADMIN */
};
#define VFIO_IOMMU_PAMU_GET_WINDOW	_IO(VFIO_TYPE, VFIO_BASE + 81)

/* --- Violations -------------------------------------------------------------------------------- */

/*
 * A device that accesses what isn't mapped is shut off: it reaches nothing until it is revived.
 *
 * VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD - _IO(VFIO_TYPE, VFIO_BASE + 82, __s32)
 *
 * Signals the eventfd which the argument points at with each violation; -1 for none.
 *
 * Errors: EFAULT; EBADF, EINVAL for no eventfd.
 */
#define VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD	_IO(VFIO_TYPE, VFIO_BASE + 82)

/*
 * VFIO_IOMMU_PAMU_GET_VIOLATION - _IO(VFIO_TYPE, VFIO_BASE + 83, struct vfio_pamu_violation)
 *
 * Tells what the device did that is shut off: of the LIODNs from liodn on, the lowest one that is.
 * The violation stays until the device is revived or leaves the container. flags must be zero.
 *
 * Errors: EFAULT, EINVAL; ENOENT if none is shut off.
 */
struct vfio_pamu_violation {
	__u32	argsz;
	__u32	flags;
	__u32	liodn;		/* in: from which on; out: the device's logical I/O device number */
	__u32	status;		/* AVS1: what kind of violation */
	__u64	iova;		/* the address */
};
#define VFIO_IOMMU_PAMU_GET_VIOLATION	_IO(VFIO_TYPE, VFIO_BASE + 83)

/*
 * VFIO_IOMMU_PAMU_REVIVE - _IO(VFIO_TYPE, VFIO_BASE + 84, __u32)
 *
 * Lets the device, whose LIODN the argument points at, reach again what is mapped. Reset it first.
 *
 * Errors: EFAULT; ENODEV if it isn't in the container; EINVAL if it isn't shut off.
 */
#define VFIO_IOMMU_PAMU_REVIVE	_IO(VFIO_TYPE, VFIO_BASE + 84)

#endif /* VFIO_PAMU_H */
