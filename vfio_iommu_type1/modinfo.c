// SPDX-License-Identifier: GPL-2.0
/* What `module!` has no word for. */
#include <linux/module.h>

MODULE_VERSION("0.2");
