// SPDX-License-Identifier: GPL-2.0
/*
 * Functions for the macros and inline functions of C headers that Rust cannot call. They are
 * exported because generic Rust code that calls them is compiled into the modules that use it.
 */
#include <linux/export.h>
#include <linux/iommu.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
