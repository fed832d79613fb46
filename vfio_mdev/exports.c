// SPDX-License-Identifier: GPL-2.0
#include <linux/mdev.h>
#include <linux/module.h>

/* What mdev.ko exports, and how, is an ABI: the list and its GPL-ness are those of the kernel's. */

EXPORT_SYMBOL(mdev_register_driver);
EXPORT_SYMBOL(mdev_register_parent);
EXPORT_SYMBOL(mdev_unregister_driver);
EXPORT_SYMBOL(mdev_unregister_parent);

/* The Rust symbols, for drivers in Rust. */
#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "vfio_mdev/exports_generated.h"

MODULE_VERSION("0.1");
