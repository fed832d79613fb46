// SPDX-License-Identifier: GPL-2.0
#include <linux/mdev.h>
#include <linux/module.h>

/* The exported symbols, and which are GPL-only, match the kernel's mdev.ko. */

EXPORT_SYMBOL(mdev_register_driver);
EXPORT_SYMBOL(mdev_register_parent);
EXPORT_SYMBOL(mdev_unregister_driver);
EXPORT_SYMBOL(mdev_unregister_parent);

/* The Rust symbols, for drivers in Rust. */
#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "vfio_mdev/exports_generated.h"

MODULE_VERSION("0.1");
