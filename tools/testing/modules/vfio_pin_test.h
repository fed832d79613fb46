/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the guest tests ask of vfio_pin_test, by ioctl on the device's file. Programs and the driver in
 * Rust have the same in mdev_pin_test/interface.rs.
 */
#ifndef VFIO_PIN_TEST_H
#define VFIO_PIN_TEST_H

#include <linux/types.h>

struct pin_test {
	__u64	iova;
	__u32	count;		/* pages; bytes of data for PIN_TEST_READ and PIN_TEST_WRITE */
	__u32	prot;		/* IOMMU_READ (1), IOMMU_WRITE (2) */
	__u64	word;		/* PIN_TEST_PIN: first 8 bytes of the first page; PIN_TEST_POKE: in */
	__u8	data[];		/* no address: what a program sends can't hurt it */
};

/* Returns what vfio_pin_pages() returned. */
#define PIN_TEST_PIN		_IO('P', 0)
#define PIN_TEST_UNPIN		_IO('P', 1)
/* Stores word at the start of a pinned page, as a device would. */
#define PIN_TEST_POKE		_IO('P', 2)
/* vfio_dma_rw() */
#define PIN_TEST_READ		_IO('P', 3)
#define PIN_TEST_WRITE		_IO('P', 4)
/* The argument is no structure: what to do wrong until the device is closed. */
#define PIN_TEST_MISBEHAVE	_IO('P', 5)
/*
 * Keep pages when told to give them up; pin one again meanwhile; don't unpin on close; pin one again of
 * what was given up before.
 */
#define PIN_TEST_KEEP		1
#define PIN_TEST_PIN_AGAIN	2
#define PIN_TEST_KEEP_CLOSED	4
/* 8 is FAIL_RESETS, only in Rust. */
#define PIN_TEST_PIN_EARLIER	16
/* Returns how many pages are pinned. */
#define PIN_TEST_PINNED		_IO('P', 6)
/* Returns how often the driver was told to give up pages. */
#define PIN_TEST_UNMAPS		_IO('P', 7)
/* Unpins pages whether they are pinned or not. */
#define PIN_TEST_UNPIN_STRAY	_IO('P', 8)
/* Pins pages and forgets them; PIN_TEST_UNPIN_STRAY gives them back. */
#define PIN_TEST_PIN_ONLY	_IO('P', 9)

#endif
