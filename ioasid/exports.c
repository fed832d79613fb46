// SPDX-License-Identifier: GPL-2.0
/* The symbols of ioasid: those of include/linux/ioasid.h, and the Rust symbols for other crates. */
#include <linux/export.h>

#include "../include/linux/ioasid.h"

EXPORT_SYMBOL_GPL(ioasid_alloc);
EXPORT_SYMBOL_GPL(ioasid_alloc_gfp);
EXPORT_SYMBOL_GPL(ioasid_alloc_owned);
EXPORT_SYMBOL_GPL(ioasid_attach_data);
EXPORT_SYMBOL_GPL(ioasid_attach_spid);
EXPORT_SYMBOL_GPL(ioasid_cancel_capacity);
EXPORT_SYMBOL_GPL(ioasid_detach_data);
EXPORT_SYMBOL_GPL(ioasid_detach_spid);
EXPORT_SYMBOL_GPL(ioasid_find);
EXPORT_SYMBOL_GPL(ioasid_find_by_spid);
EXPORT_SYMBOL_GPL(ioasid_find_mm_set);
EXPORT_SYMBOL_GPL(ioasid_free);
EXPORT_SYMBOL_GPL(ioasid_free_owned);
EXPORT_SYMBOL_GPL(ioasid_get);
EXPORT_SYMBOL_GPL(ioasid_install_capacity);
EXPORT_SYMBOL_GPL(ioasid_notify);
EXPORT_SYMBOL_GPL(ioasid_put);
EXPORT_SYMBOL_GPL(ioasid_register_allocator);
EXPORT_SYMBOL_GPL(ioasid_register_notifier);
EXPORT_SYMBOL_GPL(ioasid_register_notifier_mm);
EXPORT_SYMBOL_GPL(ioasid_reserve_capacity);
EXPORT_SYMBOL_GPL(ioasid_set_alloc);
EXPORT_SYMBOL_GPL(ioasid_set_data);
EXPORT_SYMBOL_GPL(ioasid_set_for_each_ioasid);
EXPORT_SYMBOL_GPL(ioasid_set_free);
EXPORT_SYMBOL_GPL(ioasid_set_get);
EXPORT_SYMBOL_GPL(ioasid_set_put);
EXPORT_SYMBOL_GPL(ioasid_unregister_allocator);
EXPORT_SYMBOL_GPL(ioasid_unregister_notifier);
EXPORT_SYMBOL_GPL(ioasid_unregister_notifier_mm);

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "ioasid/exports_generated.h"
