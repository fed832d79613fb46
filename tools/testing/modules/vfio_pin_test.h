/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ioctls of the device file of vfio_pin_test, which the guest tests use.
 * mdev_pin_test/interface.rs defines the same requests for programs and for the Rust driver.
 */
#ifndef VFIO_PIN_TEST_H
#define VFIO_PIN_TEST_H

#include <linux/types.h>

struct pin_test {
	__u64	iova;
	__u32	count;		/* pages; bytes of data for PIN_TEST_READ and PIN_TEST_WRITE */
	__u32	prot;		/* IOMMU_READ (1), IOMMU_WRITE (2) */
	__u64	word;		/* PIN_TEST_PIN: first 8 bytes of the first page; PIN_TEST_POKE: in */
	__u8	data[];		/* not a pointer, so that no request corrupts the program */
};

/*
 * Returns the result of vfio_pin_pages(), or an error of recording the pages: ESTALE if a different
 * page was pinned at the same iova before.
 */
#define PIN_TEST_PIN		_IO('P', 0)
#define PIN_TEST_UNPIN		_IO('P', 1)
/* Stores word at the start of a pinned page, like a device. */
#define PIN_TEST_POKE		_IO('P', 2)
/* vfio_dma_rw() */
#define PIN_TEST_READ		_IO('P', 3)
#define PIN_TEST_WRITE		_IO('P', 4)
/* Takes not a structure but the misbehaviour, as bits, which lasts until the device is closed. */
#define PIN_TEST_MISBEHAVE	_IO('P', 5)
/*
 * KEEP: keep pages pinned when dma_unmap() is called. PIN_AGAIN: pin a page again in dma_unmap().
 * KEEP_CLOSED: do not unpin pages on close. PIN_EARLIER: in dma_unmap(), pin a page again that the
 * previous dma_unmap() call unpinned.
 */
#define PIN_TEST_KEEP		1
#define PIN_TEST_PIN_AGAIN	2
#define PIN_TEST_KEEP_CLOSED	4
/* 8 is FAIL_RESETS, which only the Rust driver has. */
#define PIN_TEST_PIN_EARLIER	16
/* Returns the number of pinned pages. */
#define PIN_TEST_PINNED		_IO('P', 6)
/* Returns how often dma_unmap() was called. */
#define PIN_TEST_UNMAPS		_IO('P', 7)
/* Unpins pages, whether they are pinned or not. */
#define PIN_TEST_UNPIN_STRAY	_IO('P', 8)
/* Pins pages without recording them; PIN_TEST_UNPIN_STRAY unpins them. */
#define PIN_TEST_PIN_ONLY	_IO('P', 9)

#endif
