/* SPDX-License-Identifier: GPL-2.0 */
/* The ioctls of /dev/vfio_core_test, which the guest tests use. */
#ifndef VFIO_CORE_TEST_H
#define VFIO_CORE_TEST_H

#include <linux/types.h>

/* Takes a file descriptor; returns the results of the vfio_file_*() functions for it, as bits. */
#define CORE_TEST_FILE		_IO('C', 0)
#define CORE_TEST_FILE_IS_GROUP			(1 << 0)
#define CORE_TEST_FILE_IS_VALID			(1 << 1)
#define CORE_TEST_FILE_ENFORCED_COHERENT	(1 << 2)
/* The first device of this module is in the group. */
#define CORE_TEST_FILE_HAS_DEV			(1 << 3)
#define CORE_TEST_FILE_IOMMU_GROUP		(1 << 4)

/* Returns whether the first device has a reference to a virtual machine. */
#define CORE_TEST_KVM		_IO('C', 1)

/* Tries to register another VFIO device for the PCI device of this name, which already has one. */
#define CORE_TEST_OFFER		_IO('C', 2)
struct core_test_offer {
	char	name[32];
};

/* Registers or unregisters a backend with one extension, whose open() fails. Takes the action. */
#define CORE_TEST_BACKEND	_IO('C', 3)
#define CORE_TEST_BACKEND_UNREGISTER	0
#define CORE_TEST_BACKEND_REGISTER	1
/* A backend that has register_device(), but not unregister_device(). */
#define CORE_TEST_BACKEND_REGISTER_HALF	2
/* The extension that the backend supports. */
#define CORE_TEST_EXTENSION	0x7e57
/* The result of VFIO_CHECK_EXTENSION for it. */
#define CORE_TEST_ANSWER	5

/* vfio_mig_get_next_state(), for a device with these migration flags. */
#define CORE_TEST_NEXT_STATE	_IO('C', 4)
struct core_test_next_state {
	__u32	flags;
	__u32	current_state;
	__u32	target;
	__u32	next;		/* out */
};

/* vfio_set_irqs_validate_and_prepare() */
#define CORE_TEST_IRQS		_IO('C', 5)
struct core_test_irqs {
	__u32	argsz;
	__u32	flags;
	__u32	index;
	__u32	start;
	__u32	count;
	__u32	vectors;
	__u32	types;
	__u32	no_size;	/* pass no pointer for the size of the data */
	__u64	size;		/* out */
};

/* vfio_virqfd_enable() for the module's only slot */
#define CORE_TEST_LISTEN	_IO('C', 6)
struct core_test_listen {
	__s32	fd;
	__u32	flags;
};
/* The handler requests the thread function, which takes a tenth of a second. */
#define CORE_TEST_LISTEN_THREAD		(1 << 0)

/* vfio_virqfd_disable() and vfio_virqfd_flush_thread() for the slot */
#define CORE_TEST_IGNORE	_IO('C', 7)
#define CORE_TEST_FLUSH		_IO('C', 8)

/* Returns whether the slot is in use. */
#define CORE_TEST_LISTENING	_IO('C', 9)

/* Returns how often the functions ran since the last CORE_TEST_COUNTS. */
#define CORE_TEST_COUNTS	_IO('C', 10)
struct core_test_counts {
	__u32	handler;
	__u32	thread;
};

/* Returns the results of the device set functions for the two devices of the set, as bits. */
#define CORE_TEST_SET		_IO('C', 11)
#define CORE_TEST_SET_IS_SHARED		(1 << 0)
#define CORE_TEST_SET_FINDS_FIRST	(1 << 1)
#define CORE_TEST_SET_FINDS_SECOND	(1 << 2)
/* vfio_find_device_in_devset() finds a device that is not in the set. */
#define CORE_TEST_SET_FINDS_OTHER	(1 << 3)
/* The bits starting at this one have the open count of the set. */
#define CORE_TEST_SET_OPEN_SHIFT	8

/* vfio_info_cap_add() with these sizes, and vfio_info_cap_shift() */
#define CORE_TEST_CAPS		_IO('C', 12)
struct core_test_caps {
	__u32	count;
	__u32	shift;
	__u32	sizes[4];	/* including the header */
	__u32	size;		/* out: of the chain */
	__u32	pad;
	__u8	chain[256];	/* out */
};

/* vfio_combine_iova_ranges() */
#define CORE_TEST_COMBINE	_IO('C', 13)
struct core_test_combine {
	__u32	count;		/* in and out */
	__u32	wanted;
	struct {
		__u64	start;
		__u64	last;
	} ranges[8];		/* in and out, in order */
};

/*
 * Holds the lock of the device set while another device is added to the set, and meanwhile assigns
 * a further device to a new set. Returns ETIMEDOUT if the latter waits for the lock.
 */
#define CORE_TEST_SET_HELD	_IO('C', 14)

#endif
