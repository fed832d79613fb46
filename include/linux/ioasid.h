/* SPDX-License-Identifier: GPL-2.0 */
/*
 * System-wide I/O address space ids (PASIDs): the symbols of ioasid.ko.
 *
 * The names are those of Linux up to 6.3, and of the sets that were proposed for it.
 * Documentation/ioasid.rst describes the rules and the error numbers.
 */
#ifndef _LINUX_IOASID_H
#define _LINUX_IOASID_H

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/notifier.h>
#include <linux/types.h>

struct mm_struct;

/* The invalid id. ioasid_t is defined in <linux/iommu.h>. */
#define INVALID_IOASID ((ioasid_t)-1)

static inline bool pasid_valid(ioasid_t ioasid)
{
	return ioasid != INVALID_IOASID;
}

/* --- Sets: owners of ids, with quotas. A NULL set stands for the ids in no set. --------------- */

struct ioasid_set;

enum ioasid_set_type {
	IOASID_SET_TYPE_NULL = 1,	/* no token */
	IOASID_SET_TYPE_MM,		/* the token is a struct mm_struct, which has at most one set */
	IOASID_SET_TYPE_PRIVATE,	/* the token is only meaningful to the set's creator */
	IOASID_SET_TYPE_NR,
};

/* All of these may sleep, except get and put. Errors are error pointers. */
struct ioasid_set *ioasid_set_alloc(void *token, ioasid_t quota, int type);
int ioasid_set_free(struct ioasid_set *set);
void ioasid_set_get(struct ioasid_set *set);
void ioasid_set_put(struct ioasid_set *set);
struct ioasid_set *ioasid_find_mm_set(struct mm_struct *mm);
int ioasid_set_for_each_ioasid(struct ioasid_set *set, void (*fn)(ioasid_t id, void *data),
			       void *data);

/* Lowers the number of ids. Possible once, before any is used. May sleep. */
int ioasid_install_capacity(ioasid_t total);
int ioasid_reserve_capacity(ioasid_t count);
void ioasid_cancel_capacity(ioasid_t count);

/* --- Ids. Allowed in any context; for ids of a device see "Custom allocators". ---------------- */

/* Returns an id between min and max, both included, or INVALID_IOASID. */
ioasid_t ioasid_alloc(struct ioasid_set *set, ioasid_t min, ioasid_t max, void *private);
/* The same, but returns an error number, or 0 and the id. May sleep if gfp allows it. */
int ioasid_alloc_gfp(struct ioasid_set *set, ioasid_t min, ioasid_t max, void *private, gfp_t gfp,
		     ioasid_t *ioasid);
void ioasid_free(struct ioasid_set *set, ioasid_t ioasid);
/*
 * Allocates an id in no set that only its handle can free, once. The lower half of the handle is the
 * id, or INVALID_IOASID on failure. Allocating may sleep.
 */
u64 ioasid_alloc_owned(ioasid_t min, ioasid_t max);
void ioasid_free_owned(u64 handle);
int ioasid_get(struct ioasid_set *set, ioasid_t ioasid);
bool ioasid_put(struct ioasid_set *set, ioasid_t ioasid);
/* Returns the private data, NULL if getter returns false, or -ENOENT or -EACCES as error pointer. */
void *ioasid_find(struct ioasid_set *set, ioasid_t ioasid, bool (*getter)(void *));
/* Sleeps until no reader uses the old data. */
int ioasid_set_data(ioasid_t ioasid, void *data);
int ioasid_attach_data(ioasid_t ioasid, void *data);
void ioasid_detach_data(ioasid_t ioasid);

/* --- SPIDs: the numbers that the owner of a set, such as a guest, uses for its ids ------------ */

int ioasid_attach_spid(ioasid_t ioasid, ioasid_t spid);
void ioasid_detach_spid(ioasid_t ioasid);
ioasid_t ioasid_find_by_spid(struct ioasid_set *set, ioasid_t spid, bool get);

/* --- Notifiers -------------------------------------------------------------------------------- */

enum ioasid_notify_val {
	IOASID_NOTIFY_ALLOC = 1,
	IOASID_NOTIFY_FREE,
	IOASID_NOTIFY_BIND,
	IOASID_NOTIFY_UNBIND,
};

#define IOASID_NOTIFY_FLAG_ALL BIT(0)	/* the notifiers of all ids */
#define IOASID_NOTIFY_FLAG_SET BIT(1)	/* the notifiers of the id's set */

/* Values for notifier_block::priority: the highest is called first. */
enum ioasid_notifier_prios {
	IOASID_PRIO_LAST,
	IOASID_PRIO_DEVICE,
	IOASID_PRIO_IOMMU,
	IOASID_PRIO_CPU,
};

struct ioasid_nb_args {
	ioasid_t id;
	ioasid_t spid;			/* INVALID_IOASID if there is none */
	struct ioasid_set *set;		/* NULL if the id is in no set */
	void *pdata;
};

/* Callbacks run in the context of the caller that allocates, frees or binds. Registering may sleep. */
int ioasid_register_notifier(struct ioasid_set *set, struct notifier_block *nb);
void ioasid_unregister_notifier(struct ioasid_set *set, struct notifier_block *nb);
int ioasid_register_notifier_mm(struct mm_struct *mm, struct notifier_block *nb);
void ioasid_unregister_notifier_mm(struct mm_struct *mm, struct notifier_block *nb);
/* For BIND and UNBIND only: allocating and freeing notify by themselves. */
int ioasid_notify(ioasid_t ioasid, enum ioasid_notify_val cmd, unsigned int flags);

/* --- Custom allocators ------------------------------------------------------------------------ */

typedef ioasid_t (*ioasid_alloc_fn_t)(ioasid_t min, ioasid_t max, void *data);
typedef void (*ioasid_free_fn_t)(ioasid_t ioasid, void *data);

/*
 * A source of ids, such as the virtual command register of a guest's IOMMU. Called without locks, in
 * the context of the caller that allocates or frees. Allocators with the same two functions share ids.
 */
struct ioasid_allocator_ops {
	ioasid_alloc_fn_t alloc;
	ioasid_free_fn_t free;
	struct list_head list;		/* unused, for compatibility with Linux up to 6.3 */
	void *pdata;
};

/* Both may sleep. The allocator is not called any more after ioasid_unregister_allocator(). */
int ioasid_register_allocator(struct ioasid_allocator_ops *allocator);
void ioasid_unregister_allocator(struct ioasid_allocator_ops *allocator);

#endif /* _LINUX_IOASID_H */
