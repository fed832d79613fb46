// SPDX-License-Identifier: GPL-2.0
#include <linux/mdev.h>
#include <linux/module.h>

#include "../include/linux/mdev_peer.h"

/* The exported symbols, and which are GPL-only, match the kernel's mdev.ko. */

EXPORT_SYMBOL(mdev_register_driver);
EXPORT_SYMBOL(mdev_register_parent);
EXPORT_SYMBOL(mdev_unregister_driver);
EXPORT_SYMBOL(mdev_unregister_parent);

/* Peer-to-peer groups, which the kernel's mdev.ko does not have. */
EXPORT_SYMBOL_GPL(mdev_peer_register_with);
EXPORT_SYMBOL_GPL(mdev_peer_unregister_with);
EXPORT_SYMBOL_GPL(mdev_peer_opened);
EXPORT_SYMBOL_GPL(mdev_peer_closed);
EXPORT_SYMBOL_GPL(mdev_peer_for_each);
EXPORT_SYMBOL_GPL(mdev_peer_is_open);
EXPORT_SYMBOL_GPL(mdev_peer_members_for_each);

/* The Rust symbols, for drivers in Rust. */
#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "vfio_mdev/exports_generated.h"

MODULE_VERSION("0.1");
