// SPDX-License-Identifier: GPL-2.0
/* What mdev.ko exports, and how, is an ABI: the list and its GPL-ness are those of the kernel's. */
#include <linux/mdev.h>
#include <linux/module.h>

EXPORT_SYMBOL(mdev_register_driver);
EXPORT_SYMBOL(mdev_register_parent);
EXPORT_SYMBOL(mdev_unregister_driver);
EXPORT_SYMBOL(mdev_unregister_parent);

MODULE_VERSION("0.1");
