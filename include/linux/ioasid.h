/* SPDX-License-Identifier: GPL-2.0 */
/*
 * I/O address space ids (PASIDs), system-wide: the symbols of ioasid.ko.
 *
 * The names are those which Linux had until 6.3, and those of the sets which were proposed for it.
 * Documentation/ioasid.rst has the rules and the error numbers.
 */
#ifndef _LINUX_IOASID_H
#define _LINUX_IOASID_H

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/notifier.h>
#include <linux/types.h>

struct mm_struct;

/* The id that is none. ioasid_t itself comes from <linux/iommu.h>. */
#define INVALID_IOASID ((ioasid_t)-1)

static inline bool pasid_valid(ioasid_t ioasid)
{
	return ioasid != INVALID_IOASID;
}

/* --- Sets: who owns ids, and how many. A NULL set stands for ids that are in no set. ---------- */

struct ioasid_set;

enum ioasid_set_type {
	IOASID_SET_TYPE_NULL = 1,	/* no token */
	IOASID_SET_TYPE_MM,		/* the token is a struct mm_struct, which has one set at most */
	IOASID_SET_TYPE_PRIVATE,	/* the token means something to who made the set */
	IOASID_SET_TYPE_NR,
};

/* All of these may sleep but for get and put. Errors are error pointers. */
struct ioasid_set *ioasid_set_alloc(void *token, ioasid_t quota, int type);
int ioasid_set_free(struct ioasid_set *set);
void ioasid_set_get(struct ioasid_set *set);
void ioasid_set_put(struct ioasid_set *set);
struct ioasid_set *ioasid_find_mm_set(struct mm_struct *mm);
int ioasid_set_for_each_ioasid(struct ioasid_set *set, void (*fn)(ioasid_t id, void *data),
			       void *data);

/* Lowers the number of ids; once, before any is used. May sleep. */
int ioasid_install_capacity(ioasid_t total);
int ioasid_reserve_capacity(ioasid_t count);
void ioasid_cancel_capacity(ioasid_t count);

/* --- Ids. From any context, but see "Custom allocators" for those which a device hands out. --- */

/* An id between min and max, both included, or INVALID_IOASID. */
ioasid_t ioasid_alloc(struct ioasid_set *set, ioasid_t min, ioasid_t max, void *private);
/* The same by the error number: 0 and the id, or why there is none. May sleep if gfp says so. */
int ioasid_alloc_gfp(struct ioasid_set *set, ioasid_t min, ioasid_t max, void *private, gfp_t gfp,
		     ioasid_t *ioasid);
void ioasid_free(struct ioasid_set *set, ioasid_t ioasid);
/*
 * An id in no set that its number can't free: only the handle can, once. The lower half of the handle
 * is the id, INVALID_IOASID if there is none. Allocating may sleep.
 */
u64 ioasid_alloc_owned(ioasid_t min, ioasid_t max);
void ioasid_free_owned(u64 handle);
int ioasid_get(struct ioasid_set *set, ioasid_t ioasid);
bool ioasid_put(struct ioasid_set *set, ioasid_t ioasid);
/* The private data; -ENOENT, -EACCES as error pointers; NULL if getter refuses. */
void *ioasid_find(struct ioasid_set *set, ioasid_t ioasid, bool (*getter)(void *));
/* Waits until nobody sees the old data: may sleep. */
int ioasid_set_data(ioasid_t ioasid, void *data);
int ioasid_attach_data(ioasid_t ioasid, void *data);
void ioasid_detach_data(ioasid_t ioasid);

/* --- SPIDs: what a set's owner, a guest, calls the id ------------------------------------------ */

int ioasid_attach_spid(ioasid_t ioasid, ioasid_t spid);
void ioasid_detach_spid(ioasid_t ioasid);
ioasid_t ioasid_find_by_spid(struct ioasid_set *set, ioasid_t spid, bool get);

/* --- Notifications ----------------------------------------------------------------------------- */

enum ioasid_notify_val {
	IOASID_NOTIFY_ALLOC = 1,
	IOASID_NOTIFY_FREE,
	IOASID_NOTIFY_BIND,
	IOASID_NOTIFY_UNBIND,
};

#define IOASID_NOTIFY_FLAG_ALL BIT(0)	/* those that registered for all ids */
#define IOASID_NOTIFY_FLAG_SET BIT(1)	/* those that registered for the id's set */

/* What notifier_block::priority should be: the highest is called first. */
enum ioasid_notifier_prios {
	IOASID_PRIO_LAST,
	IOASID_PRIO_DEVICE,
	IOASID_PRIO_IOMMU,
	IOASID_PRIO_CPU,
};

struct ioasid_nb_args {
	ioasid_t id;
	ioasid_t spid;			/* INVALID_IOASID if there is none */
	struct ioasid_set *set;		/* NULL if the id is in none */
	void *pdata;
};

/* Callbacks run in the context of who allocates, frees or binds. Registering may sleep. */
int ioasid_register_notifier(struct ioasid_set *set, struct notifier_block *nb);
void ioasid_unregister_notifier(struct ioasid_set *set, struct notifier_block *nb);
int ioasid_register_notifier_mm(struct mm_struct *mm, struct notifier_block *nb);
void ioasid_unregister_notifier_mm(struct mm_struct *mm, struct notifier_block *nb);
/* BIND and UNBIND only: the others come by themselves. */
int ioasid_notify(ioasid_t ioasid, enum ioasid_notify_val cmd, unsigned int flags);

/* --- Custom allocators ------------------------------------------------------------------------- */

typedef ioasid_t (*ioasid_alloc_fn_t)(ioasid_t min, ioasid_t max, void *data);
typedef void (*ioasid_free_fn_t)(ioasid_t ioasid, void *data);

/*
 * A source of ids, such as the virtual command register of a guest's IOMMU. Called in the context
 * of who allocates or frees, without locks. Allocators with both functions in common share ids.
 */
struct ioasid_allocator_ops {
	ioasid_alloc_fn_t alloc;
	ioasid_free_fn_t free;
	struct list_head list;		/* not used; was the old allocator's */
	void *pdata;
};

/* Both may sleep. After the latter nothing of the allocator is called any more. */
int ioasid_register_allocator(struct ioasid_allocator_ops *allocator);
void ioasid_unregister_allocator(struct ioasid_allocator_ops *allocator);

#endif /* _LINUX_IOASID_H */
