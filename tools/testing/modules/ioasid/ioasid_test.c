// SPDX-License-Identifier: GPL-2.0
/*
 * Tests the C interface of ioasid, its use together with the kernel's global PASIDs, and concurrent
 * users.
 */
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/ioasid.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/vmalloc.h>

#define PASIDS		(1U << 20)
/* The number of PASIDs reserved for the kernel: see the module parameter kernel_share. */
#define KERNEL_SHARE	0x8000U
#define ROUNDS		(IS_ENABLED(CONFIG_KASAN) ? 5000 : 50000)

static char one, two;

/* --- Calls and errors -------------------------------------------------------------------------- */

static bool refuse(void *data)
{
	return false;
}

static bool accept(void *data)
{
	return data == &one;
}

static void test_ids(struct kunit *test)
{
	ioasid_t id = ioasid_alloc(NULL, 0x9000, 0x9fff, &one);

	KUNIT_ASSERT_EQ(test, id, 0x9000);
	KUNIT_EXPECT_TRUE(test, pasid_valid(id));
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(NULL, id, NULL), (void *)&one);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(NULL, id, accept), (void *)&one);
	KUNIT_EXPECT_NULL(test, ioasid_find(NULL, id, refuse));
	KUNIT_EXPECT_EQ(test, ioasid_set_data(id, &two), 0);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(NULL, id, NULL), (void *)&two);
	KUNIT_EXPECT_EQ(test, ioasid_attach_data(id, &one), -EBUSY);
	ioasid_detach_data(id);
	KUNIT_EXPECT_NULL(test, ioasid_find(NULL, id, NULL));
	KUNIT_EXPECT_EQ(test, ioasid_attach_data(id, &one), 0);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), 0);
	ioasid_free(NULL, id);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), -EBUSY);
	ioasid_free(NULL, id);
	KUNIT_EXPECT_TRUE(test, ioasid_put(NULL, id));
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_find(NULL, id, NULL)), -ENOENT);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), -ENOENT);
	KUNIT_EXPECT_EQ(test, ioasid_set_data(id, &one), -ENOENT);
	KUNIT_EXPECT_FALSE(test, ioasid_put(NULL, id));
}

/* An id that a handle owns cannot be freed by its number. A freed handle frees nothing. */
static void test_owned_id_is_freed_by_its_handle(struct kunit *test)
{
	u64 handle = ioasid_alloc_owned(0x9000, 0x9000), next;
	ioasid_t id = handle;

	KUNIT_ASSERT_EQ(test, id, 0x9000);
	KUNIT_EXPECT_EQ(test, (ioasid_t)ioasid_alloc_owned(0x9000, 0x9000), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, (ioasid_t)ioasid_alloc_owned(9, 8), INVALID_IOASID);
	ioasid_free(NULL, id);
	KUNIT_EXPECT_FALSE(test, ioasid_put(NULL, id));
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), 0);
	KUNIT_EXPECT_FALSE(test, ioasid_put(NULL, id));
	ioasid_free_owned(handle);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), -ENOENT);
	next = ioasid_alloc_owned(0x9000, 0x9000);
	KUNIT_EXPECT_NE(test, next, handle);
	KUNIT_EXPECT_EQ(test, (ioasid_t)next, 0x9000);
	ioasid_free_owned(handle);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), 0);
	ioasid_put(NULL, id);
	ioasid_free_owned(next);
	ioasid_free_owned(~0ULL);
}

static void test_ranges(struct kunit *test)
{
	ioasid_t id;

	KUNIT_EXPECT_EQ(test, ioasid_alloc(NULL, 9, 8, NULL), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, ioasid_alloc(NULL, 0, KERNEL_SHARE - 1, NULL), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, ioasid_alloc(NULL, PASIDS, INVALID_IOASID, NULL), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(NULL, 9, 8, NULL, GFP_KERNEL, &id), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(NULL, 1, 2, NULL, GFP_KERNEL, &id), -ENOSPC);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(NULL, 0x9000, 0x9000, NULL, GFP_KERNEL, &id), 0);
	KUNIT_EXPECT_EQ(test, id, 0x9000);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(NULL, 0x9000, 0x9000, NULL, GFP_KERNEL, &id),
			-ENOSPC);
	ioasid_free(NULL, 0x9000);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(NULL, 0x9000, 0x9000, NULL, GFP_NOFS, &id), 0);
	ioasid_free(NULL, 0x9000);
}

static void test_atomic_context(struct kunit *test)
{
	unsigned long flags;
	ioasid_t id;
	void *data;
	int got;

	local_irq_save(flags);
	id = ioasid_alloc(NULL, 1, PASIDS - 1, &one);
	data = ioasid_find(NULL, id, NULL);
	got = ioasid_get(NULL, id);
	ioasid_free(NULL, id);
	ioasid_put(NULL, id);
	local_irq_restore(flags);
	KUNIT_EXPECT_NE(test, id, INVALID_IOASID);
	KUNIT_EXPECT_PTR_EQ(test, data, (void *)&one);
	KUNIT_EXPECT_EQ(test, got, 0);
	KUNIT_EXPECT_EQ(test, ioasid_get(NULL, id), -ENOENT);
}

static void count_id(ioasid_t id, void *data)
{
	++*(unsigned int *)data;
}

static void test_sets(struct kunit *test)
{
	struct ioasid_set *set, *other;
	unsigned int count = 0;
	ioasid_t a, b, id;

	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(NULL, 1, 0)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(NULL, 1, IOASID_SET_TYPE_NR)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(NULL, 1, IOASID_SET_TYPE_MM)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(&one, 1, IOASID_SET_TYPE_NULL)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(NULL, PASIDS, IOASID_SET_TYPE_NULL)),
			-ENOSPC);
	set = ioasid_set_alloc(NULL, 2, IOASID_SET_TYPE_NULL);
	other = ioasid_set_alloc(&one, 2, IOASID_SET_TYPE_PRIVATE);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, set);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, other);

	a = ioasid_alloc(set, 1, PASIDS - 1, &one);
	b = ioasid_alloc(set, 1, PASIDS - 1, &one);
	KUNIT_EXPECT_EQ(test, ioasid_alloc_gfp(set, 1, PASIDS - 1, NULL, GFP_KERNEL, &id), -EDQUOT);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_find(other, a, NULL)), -EACCES);
	KUNIT_EXPECT_EQ(test, ioasid_get(other, a), -EACCES);
	ioasid_free(other, a);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(set, a, NULL), (void *)&one);
	KUNIT_EXPECT_EQ(test, ioasid_set_for_each_ioasid(set, count_id, &count), 0);
	KUNIT_EXPECT_EQ(test, count, 2);

	KUNIT_EXPECT_EQ(test, ioasid_attach_spid(a, 7), 0);
	KUNIT_EXPECT_EQ(test, ioasid_attach_spid(a, 8), -EBUSY);
	KUNIT_EXPECT_EQ(test, ioasid_attach_spid(b, 7), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_attach_spid(b, INVALID_IOASID), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_find_by_spid(set, 7, false), a);
	KUNIT_EXPECT_EQ(test, ioasid_find_by_spid(other, 7, false), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, ioasid_find_by_spid(set, 7, true), a);
	KUNIT_EXPECT_FALSE(test, ioasid_put(set, a));
	ioasid_detach_spid(a);
	KUNIT_EXPECT_EQ(test, ioasid_find_by_spid(set, 7, false), INVALID_IOASID);

	KUNIT_EXPECT_EQ(test, ioasid_set_free(set), -EBUSY);
	ioasid_free(set, a);
	ioasid_free(NULL, b);
	ioasid_set_get(set);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(set), 0);
	KUNIT_EXPECT_EQ(test, ioasid_alloc(set, 1, PASIDS - 1, NULL), INVALID_IOASID);
	ioasid_set_put(set);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(set), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(NULL), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(other), 0);
}

/* A pointer to a freed set does not refer to a set that is allocated later. */
static void test_pointer_to_a_freed_set(struct kunit *test)
{
	struct ioasid_set *old = ioasid_set_alloc(NULL, 2, IOASID_SET_TYPE_NULL), *next;
	ioasid_t id;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, old);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(old), 0);
	next = ioasid_set_alloc(NULL, 2, IOASID_SET_TYPE_NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, next);
	KUNIT_EXPECT_PTR_NE(test, next, old);
	id = ioasid_alloc(next, 1, PASIDS - 1, &one);
	KUNIT_EXPECT_EQ(test, ioasid_alloc(old, 1, PASIDS - 1, NULL), INVALID_IOASID);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_find(old, id, NULL)), -EACCES);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(old), -EINVAL);
	ioasid_set_put(old);
	ioasid_free(old, id);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(next, id, NULL), (void *)&one);
	ioasid_free(next, id);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(next), 0);
}

static void test_mm_sets(struct kunit *test)
{
	struct mm_struct *mm = (struct mm_struct *)&one;
	struct ioasid_set *set = ioasid_set_alloc(mm, 2, IOASID_SET_TYPE_MM);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, set);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_set_alloc(mm, 2, IOASID_SET_TYPE_MM)), -EEXIST);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find_mm_set(mm), set);
	ioasid_set_put(set);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(set), 0);
	KUNIT_EXPECT_EQ(test, PTR_ERR(ioasid_find_mm_set(mm)), -ENOENT);
}

static void test_capacity(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, ioasid_install_capacity(KERNEL_SHARE), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_reserve_capacity(PASIDS), -ENOSPC);
	KUNIT_EXPECT_EQ(test, ioasid_reserve_capacity(100), 0);
	KUNIT_EXPECT_EQ(test, ioasid_install_capacity(PASIDS), -EBUSY);
	/* Cancelling more than was reserved has no effect. */
	ioasid_cancel_capacity(101);
	ioasid_cancel_capacity(~0U);
	KUNIT_EXPECT_EQ(test, ioasid_install_capacity(PASIDS), -EBUSY);
	ioasid_cancel_capacity(100);
	ioasid_cancel_capacity(1);
	KUNIT_EXPECT_EQ(test, ioasid_reserve_capacity(PASIDS - KERNEL_SHARE + 1), -ENOSPC);
	KUNIT_EXPECT_EQ(test, ioasid_install_capacity(PASIDS + 1), -EINVAL);
}

/* --- Notifiers --------------------------------------------------------------------------------- */

struct listener {
	struct notifier_block nb;
	unsigned long events;	/* one per hexadecimal digit, the newest in the lowest */
	struct ioasid_nb_args last;
};

static int listen(struct notifier_block *nb, unsigned long event, void *args)
{
	struct listener *listener = container_of(nb, struct listener, nb);

	listener->events = listener->events << 4 | event;
	listener->last = *(struct ioasid_nb_args *)args;
	return NOTIFY_OK;
}

static void test_notifiers(struct kunit *test)
{
	struct listener all = { .nb = { .notifier_call = listen, .priority = IOASID_PRIO_CPU } };
	struct listener ours = { .nb = { .notifier_call = listen } };
	struct mm_struct *mm = (struct mm_struct *)&one;
	struct listener early = { .nb = { .notifier_call = listen } };
	struct ioasid_set *set;
	ioasid_t id;

	KUNIT_EXPECT_EQ(test, ioasid_register_notifier_mm(mm, &early.nb), 0);
	set = ioasid_set_alloc(mm, 2, IOASID_SET_TYPE_MM);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, set);
	KUNIT_EXPECT_EQ(test, ioasid_register_notifier(NULL, &all.nb), 0);
	KUNIT_EXPECT_EQ(test, ioasid_register_notifier(NULL, &all.nb), -EEXIST);
	KUNIT_EXPECT_EQ(test, ioasid_register_notifier(set, &ours.nb), 0);

	id = ioasid_alloc(set, 1, PASIDS - 1, &one);
	KUNIT_EXPECT_EQ(test, ioasid_attach_spid(id, 5), 0);
	KUNIT_EXPECT_EQ(test, ioasid_notify(id, IOASID_NOTIFY_ALLOC, 3), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_notify(id, IOASID_NOTIFY_BIND, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, ioasid_notify(id, IOASID_NOTIFY_BIND,
					    IOASID_NOTIFY_FLAG_ALL | IOASID_NOTIFY_FLAG_SET), 0);
	KUNIT_EXPECT_EQ(test, ioasid_notify(id, IOASID_NOTIFY_BIND, IOASID_NOTIFY_FLAG_ALL), -EBUSY);
	KUNIT_EXPECT_EQ(test, ioasid_notify(id, IOASID_NOTIFY_UNBIND, IOASID_NOTIFY_FLAG_SET), 0);
	KUNIT_EXPECT_EQ(test, ours.last.id, id);
	KUNIT_EXPECT_EQ(test, ours.last.spid, 5);
	KUNIT_EXPECT_PTR_EQ(test, ours.last.set, set);
	KUNIT_EXPECT_PTR_EQ(test, ours.last.pdata, (void *)&one);
	ioasid_free(set, id);
	KUNIT_EXPECT_EQ(test, all.events, 0x132);
	KUNIT_EXPECT_EQ(test, ours.events, 0x1342);
	KUNIT_EXPECT_EQ(test, early.events, 0x1342);

	ioasid_unregister_notifier(NULL, &all.nb);
	ioasid_unregister_notifier(set, &ours.nb);
	ioasid_unregister_notifier_mm(mm, &early.nb);
	ioasid_free(set, ioasid_alloc(set, 1, PASIDS - 1, NULL));
	KUNIT_EXPECT_EQ(test, ours.events, 0x1342);
	KUNIT_EXPECT_EQ(test, ioasid_set_free(set), 0);
}

/* --- Custom allocators ------------------------------------------------------------------------- */

/*
 * The data of a custom allocator. held is the number of its allocated ids. gone is set while the
 * allocator is unregistered; late counts the calls meanwhile.
 */
struct source {
	atomic_t next, held;
	bool gone;
	atomic_t late;
};

static ioasid_t source_alloc(ioasid_t min, ioasid_t max, void *data)
{
	struct source *source = data;

	if (READ_ONCE(source->gone))
		atomic_inc(&source->late);
	atomic_inc(&source->held);
	return 0x100 + (unsigned int)atomic_inc_return(&source->next) % 0xfff00;
}

static void source_free(ioasid_t id, void *data)
{
	struct source *source = data;

	if (READ_ONCE(source->gone))
		atomic_inc(&source->late);
	atomic_dec(&source->held);
}

static ioasid_t no_alloc(ioasid_t min, ioasid_t max, void *data)
{
	return INVALID_IOASID;
}

static void test_allocators(struct kunit *test)
{
	struct source source = {};
	struct ioasid_allocator_ops first = {
		.alloc = source_alloc, .free = source_free, .pdata = &source,
	};
	struct ioasid_allocator_ops second = first, waiting = first, broken = {};
	ioasid_t id;

	waiting.alloc = no_alloc;
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&broken), -EINVAL);
	id = ioasid_alloc(NULL, 1, PASIDS - 1, NULL);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&first), -EAGAIN);
	ioasid_free(NULL, id);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&first), 0);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&waiting), 0);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&second), 0);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&first), -EEXIST);
	KUNIT_EXPECT_EQ(test, ioasid_register_allocator(&second), -EEXIST);
	ioasid_unregister_allocator(&broken);

	id = ioasid_alloc(NULL, 1, PASIDS - 1, &one);
	KUNIT_EXPECT_EQ(test, id, 0x101);
	ioasid_unregister_allocator(&first);
	KUNIT_EXPECT_PTR_EQ(test, ioasid_find(NULL, id, NULL), (void *)&one);
	ioasid_free(NULL, id);
	KUNIT_EXPECT_EQ(test, atomic_read(&source.held), 0);
	ioasid_unregister_allocator(&second);
	KUNIT_EXPECT_EQ(test, ioasid_alloc(NULL, 1, PASIDS - 1, NULL), INVALID_IOASID);
	ioasid_unregister_allocator(&waiting);
	id = ioasid_alloc(NULL, 1, PASIDS - 1, NULL);
	KUNIT_EXPECT_EQ(test, id, KERNEL_SHARE);
	ioasid_free(NULL, id);
}

/* --- The kernel's own PASIDs ------------------------------------------------------------------- */

/* A device with PASIDs; only the fields that iommu_alloc_global_pasid() reads are set. */
struct pasid_device {
	struct device dev;
	struct dev_iommu iommu;
};

struct crowd {
	unsigned long *taken;		/* a bit for each PASID, set while allocated */
	struct pasid_device *device;
	atomic_t collisions, kernels, ours;
};

static void take(struct crowd *crowd, ioasid_t id, atomic_t *whose)
{
	if (test_and_set_bit(id, crowd->taken))
		atomic_inc(&crowd->collisions);
	atomic_inc(whose);
}

static int kernel_side(void *data)
{
	struct crowd *crowd = data;
	ioasid_t held[64] = {};
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ioasid_t *slot = &held[get_random_u32_below(ARRAY_SIZE(held))];

		if (*slot) {
			clear_bit(*slot, crowd->taken);
			iommu_free_global_pasid(*slot);
			*slot = 0;
		} else {
			*slot = iommu_alloc_global_pasid(&crowd->device->dev);
			take(crowd, *slot, &crowd->kernels);
		}
	}
	for (i = 0; i < ARRAY_SIZE(held); i++) {
		if (!held[i])
			continue;
		clear_bit(held[i], crowd->taken);
		iommu_free_global_pasid(held[i]);
	}
	return 0;
}

static int our_side(void *data)
{
	struct crowd *crowd = data;
	ioasid_t held[64] = {};
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ioasid_t *slot = &held[get_random_u32_below(ARRAY_SIZE(held))];

		if (*slot) {
			clear_bit(*slot, crowd->taken);
			ioasid_free(NULL, *slot);
			*slot = 0;
		} else {
			*slot = ioasid_alloc(NULL, 1, PASIDS - 1, NULL);
			take(crowd, *slot, &crowd->ours);
		}
	}
	for (i = 0; i < ARRAY_SIZE(held); i++) {
		if (!held[i])
			continue;
		clear_bit(held[i], crowd->taken);
		ioasid_free(NULL, held[i]);
	}
	return 0;
}

struct run {
	int (*function)(void *data);
	void *data;
	struct completion done;
};

static int run_one(void *data)
{
	struct run *run = data;

	run->function(run->data);
	kthread_complete_and_exit(&run->done, 0);
}

/* Runs all functions concurrently, and waits for them. */
static void run_all(struct kunit *test, int (*const functions[])(void *), int count, void *data)
{
	struct run *runs = kunit_kcalloc(test, count, sizeof(*runs), GFP_KERNEL);
	int started, i;

	KUNIT_ASSERT_NOT_NULL(test, runs);
	for (started = 0; started < count; started++) {
		struct run *run = &runs[started];

		run->function = functions[started];
		run->data = data;
		init_completion(&run->done);
		if (IS_ERR(kthread_run(run_one, run, "ioasid_test/%d", started)))
			break;
	}
	for (i = 0; i < started; i++)
		wait_for_completion(&runs[i].done);
	KUNIT_ASSERT_EQ(test, started, count);
}

static struct pasid_device *new_pasid_device(struct kunit *test)
{
	struct pasid_device *device = kunit_kzalloc(test, sizeof(*device), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, device);
	device->iommu.max_pasids = PASIDS;
	device->dev.iommu = &device->iommu;
	return device;
}

static void test_ids_are_not_kernel_pasids(struct kunit *test)
{
	static int (*const sides[])(void *) = { kernel_side, our_side, kernel_side, our_side };
	struct crowd crowd = { .device = new_pasid_device(test) };

	crowd.taken = vzalloc(PASIDS / BITS_PER_BYTE);
	KUNIT_ASSERT_NOT_NULL(test, crowd.taken);
	run_all(test, sides, ARRAY_SIZE(sides), &crowd);
	KUNIT_EXPECT_EQ(test, atomic_read(&crowd.collisions), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&crowd.kernels), ROUNDS / 2);
	KUNIT_EXPECT_GT(test, atomic_read(&crowd.ours), ROUNDS / 2);
	vfree(crowd.taken);
}

/* The kernel gets only PASIDs of its share, however many it allocates. */
static void test_kernel_gets_its_share_only(struct kunit *test)
{
	struct pasid_device *device = new_pasid_device(test);
	ioasid_t *held = vzalloc(sizeof(*held) * KERNEL_SHARE);
	unsigned int count, i;

	KUNIT_ASSERT_NOT_NULL(test, held);
	for (count = 0; count < KERNEL_SHARE; count++) {
		held[count] = iommu_alloc_global_pasid(&device->dev);
		if (held[count] == IOMMU_PASID_INVALID)
			break;
		if (held[count] >= KERNEL_SHARE)
			KUNIT_FAIL(test, "the kernel got %u", held[count]);
	}
	KUNIT_EXPECT_EQ(test, count, KERNEL_SHARE - 1);
	for (i = 0; i < count; i++)
		iommu_free_global_pasid(held[i]);
	vfree(held);
}

/* --- Concurrency ------------------------------------------------------------------------------- */

#define SLOTS 64

/* Ids of two sets that the threads exchange. The data of an id identifies its set. */
struct table {
	struct ioasid_set *sets[2];
	atomic_t slots[SLOTS];
	atomic_t wrong, found, missed;
	struct source sources[2];
	struct ioasid_allocator_ops ops[2];
	struct listener listener;
	bool custom;
	atomic_t busy;		/* number of changers that are still running */
};

static void *data_of(int set)
{
	return set ? &two : &one;
}

/* Allocates ids, frees ids that other threads allocated, and takes references to some of them. */
static int changer(void *data)
{
	struct table *table = data;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		int set = get_random_u32_below(2);
		atomic_t *slot = &table->slots[get_random_u32_below(SLOTS)];
		ioasid_t id = ioasid_alloc(table->sets[set], 1, PASIDS - 1, data_of(set));
		ioasid_t old;

		if (id == INVALID_IOASID) {
			atomic_inc(&table->missed);
			continue;
		}
		if (i % 4 == 0)
			ioasid_attach_spid(id, get_random_u32_below(SLOTS));
		old = atomic_xchg(slot, id);
		if (!old)
			continue;
		if (i % 2 && !ioasid_get(NULL, old)) {
			ioasid_free(NULL, old);
			if (IS_ERR(ioasid_find(NULL, old, NULL)))
				atomic_inc(&table->wrong);
			ioasid_put(NULL, old);
		} else {
			ioasid_free(NULL, old);
		}
	}
	atomic_dec(&table->busy);
	return 0;
}

/* Looks up ids that are allocated and freed concurrently, and checks that sets are kept apart. */
static int reader(void *data)
{
	struct table *table = data;

	while (atomic_read(&table->busy)) {
		ioasid_t id = atomic_read(&table->slots[get_random_u32_below(SLOTS)]);
		int set = get_random_u32_below(2);
		void *found = ioasid_find(table->sets[set], id, NULL);

		if (found == data_of(set))
			atomic_inc(&table->found);
		else if (found != ERR_PTR(-ENOENT) && found != ERR_PTR(-EACCES))
			atomic_inc(&table->wrong);
		id = ioasid_find_by_spid(table->sets[set], get_random_u32_below(SLOTS), true);
		if (id == INVALID_IOASID)
			continue;
		if (ioasid_find(table->sets[set], id, NULL) != data_of(set))
			atomic_inc(&table->wrong);
		ioasid_put(table->sets[set], id);
	}
	return 0;
}

/* Adds and removes a listener, and in turn one of two allocators that share their ids. */
static int arranger(void *data)
{
	struct table *table = data;
	int turn = 0;

	while (atomic_read(&table->busy)) {
		struct source *source = &table->sources[turn & 1];

		if (ioasid_register_notifier(NULL, &table->listener.nb))
			atomic_inc(&table->wrong);
		usleep_range(100, 1000);
		ioasid_unregister_notifier(NULL, &table->listener.nb);
		if (!table->custom)
			continue;
		ioasid_unregister_allocator(&table->ops[turn & 1]);
		WRITE_ONCE(source->gone, true);
		usleep_range(100, 1000);
		WRITE_ONCE(source->gone, false);
		if (ioasid_register_allocator(&table->ops[turn & 1]))
			atomic_inc(&table->wrong);
		turn++;
	}
	return 0;
}

static void stress(struct kunit *test, bool custom)
{
	static int (*const tasks[])(void *) = { changer, changer, changer, reader, reader, arranger };
	struct table *table = kunit_kzalloc(test, sizeof(*table), GFP_KERNEL);
	int i;

	KUNIT_ASSERT_NOT_NULL(test, table);
	table->custom = custom;
	table->listener.nb.notifier_call = listen;
	atomic_set(&table->busy, 3);
	/* Both allocators count up from different ids, so that they do not allocate the same id. */
	atomic_set(&table->sources[1].next, PASIDS / 2);
	for (i = 0; i < 2; i++) {
		table->sets[i] = ioasid_set_alloc(NULL, SLOTS, IOASID_SET_TYPE_NULL);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, table->sets[i]);
		table->ops[i] = (struct ioasid_allocator_ops) {
			.alloc = source_alloc, .free = source_free, .pdata = &table->sources[i],
		};
		if (custom)
			KUNIT_ASSERT_EQ(test, ioasid_register_allocator(&table->ops[i]), 0);
	}
	run_all(test, tasks, ARRAY_SIZE(tasks), table);
	for (i = 0; i < SLOTS; i++)
		if (atomic_read(&table->slots[i]))
			ioasid_free(NULL, atomic_read(&table->slots[i]));
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, ioasid_set_free(table->sets[i]), 0);
		if (custom)
			ioasid_unregister_allocator(&table->ops[i]);
		KUNIT_EXPECT_EQ(test, atomic_read(&table->sources[i].late), 0);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&table->sources[0].held) +
			      atomic_read(&table->sources[1].held), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&table->wrong), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&table->found), 0);
	kunit_info(test, "%d found, %d without quota\n", atomic_read(&table->found),
		   atomic_read(&table->missed));
}

static void test_stress(struct kunit *test)
{
	stress(test, false);
}

static void test_stress_custom(struct kunit *test)
{
	stress(test, true);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(test_ids),
	KUNIT_CASE(test_owned_id_is_freed_by_its_handle),
	KUNIT_CASE(test_ranges),
	KUNIT_CASE(test_atomic_context),
	KUNIT_CASE(test_sets),
	KUNIT_CASE(test_pointer_to_a_freed_set),
	KUNIT_CASE(test_mm_sets),
	KUNIT_CASE(test_capacity),
	KUNIT_CASE(test_notifiers),
	KUNIT_CASE(test_allocators),
	KUNIT_CASE_SLOW(test_ids_are_not_kernel_pasids),
	KUNIT_CASE(test_kernel_gets_its_share_only),
	KUNIT_CASE_SLOW(test_stress),
	KUNIT_CASE_SLOW(test_stress_custom),
	{}
};

static struct kunit_suite suite = {
	.name = "ioasid_c",
	.test_cases = cases,
};
kunit_test_suite(suite);

MODULE_DESCRIPTION("Tests of the C interface of ioasid");
MODULE_LICENSE("GPL");
