// SPDX-License-Identifier: GPL-2.0
/* The module version, which the `module!` macro does not support. */
#include <linux/module.h>

MODULE_VERSION("0.2");
