// SPDX-License-Identifier: GPL-2.0
/*
 * Compares the cost of ioasid's ids with the kernel's XArray and IDA.
 *
 * Reading ioasid_bench in debugfs runs the measurements. Each line has the name of the contender,
 * the operation, the number of ids held meanwhile, and the cost of one operation in nanoseconds,
 * which are instructions in a machine that executes one per nanosecond. The figure of "bytes an id"
 * is in bytes.
 */
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/idr.h>
#include <linux/ioasid.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/seq_file.h>
#include <linux/xarray.h>

#define FIRST	0x8000U		/* lower ids are reserved for the kernel */
#define LAST	0xfffffU
#define LOOPS	20000U

/* The data of an id. A lookup by the id takes a reference to it. */
struct object {
	refcount_t references;
};

static struct object object;

struct contender {
	const char *name;
	u32 (*alloc)(void);
	void (*free)(u32 id);
	bool (*find)(u32 id);
};

static DEFINE_XARRAY_ALLOC(xa);
static DEFINE_IDA(ida);
static struct ioasid_set *set;

static u32 xa_take(void)
{
	u32 id;

	return xa_alloc(&xa, &id, &object, XA_LIMIT(FIRST, LAST), GFP_ATOMIC) ? INVALID_IOASID : id;
}

static void xa_give(u32 id)
{
	xa_erase(&xa, id);
}

static bool xa_find_id(u32 id)
{
	struct object *found;
	bool ok;

	rcu_read_lock();
	found = xa_load(&xa, id);
	ok = found && refcount_inc_not_zero(&found->references);
	rcu_read_unlock();
	return ok;
}

static u32 ida_take(void)
{
	int id = ida_alloc_range(&ida, FIRST, LAST, GFP_ATOMIC);

	return id < 0 ? INVALID_IOASID : id;
}

static void ida_give(u32 id)
{
	ida_free(&ida, id);
}

static u32 ioasid_take(void)
{
	return ioasid_alloc(set, FIRST, LAST, &object);
}

static void ioasid_give(u32 id)
{
	ioasid_free(set, id);
}

static bool get_object(void *data)
{
	return refcount_inc_not_zero(&((struct object *)data)->references);
}

static bool ioasid_find_id(u32 id)
{
	return !IS_ERR_OR_NULL(ioasid_find(set, id, get_object));
}

static const struct contender contenders[] = {
	{ "xarray", xa_take, xa_give, xa_find_id },
	{ "ida", ida_take, ida_give, NULL },
	{ "ioasid", ioasid_take, ioasid_give, ioasid_find_id },
};

/* Returns the id for iteration i: sequential, or scattered over all held ids. */
static u32 number(u32 i, u32 held, bool random)
{
	return FIRST + (random ? (u32)((u64)i * 2654435761U % held) : i % held);
}

/* Allocates the lowest free id and frees it; or, if random, frees a held id and reallocates it. */
static u64 alloc_free(const struct contender *c, u32 held, bool random)
{
	u64 start = ktime_get_ns();
	u32 i;

	for (i = 0; i < LOOPS; i++) {
		if (random) {
			c->free(number(i, held, true));
			c->alloc();
		} else {
			c->free(c->alloc());
		}
	}
	return (ktime_get_ns() - start) / LOOPS;
}

static u64 find(const struct contender *c, u32 held, bool random)
{
	u64 start, spent;
	u32 i;

	refcount_set(&object.references, 1);
	start = ktime_get_ns();
	for (i = 0; i < LOOPS; i++)
		if (!c->find(number(i, held, random)))
			return 0;
	spent = ktime_get_ns() - start;
	refcount_set(&object.references, 1);
	return spent / LOOPS;
}

static bool hold(const struct contender *c, u32 *held, u32 wanted)
{
	for (; *held < wanted; ++*held) {
		if (c->alloc() == INVALID_IOASID)
			return false;
		if (*held % 1024 == 0)
			cond_resched();
	}
	return true;
}

static void release(const struct contender *c, u32 held)
{
	while (held--) {
		c->free(FIRST + held);
		if (held % 1024 == 0)
			cond_resched();
	}
}

/* --- Two processors ---------------------------------------------------------------------------- */

struct work {
	const struct contender *c;
	struct completion done;
};

static atomic_t ready;

static int worker(void *data)
{
	struct work *work = data;
	u32 i;

	atomic_dec(&ready);
	while (atomic_read(&ready))
		cpu_relax();
	for (i = 0; i < LOOPS; i++)
		work->c->free(work->c->alloc());
	kthread_complete_and_exit(&work->done, 0);
}

/*
 * Allocates and frees ids on up to eight processors at once. Returns the time until the last one is
 * done, divided by the total number of operations.
 */
static u64 on_all_cpus(const struct contender *c)
{
	struct work works[8];
	int count = min_t(int, num_online_cpus(), ARRAY_SIZE(works)), i;
	u64 start = ktime_get_ns();

	atomic_set(&ready, count);
	for (i = 0; i < count; i++) {
		works[i].c = c;
		init_completion(&works[i].done);
		if (IS_ERR(kthread_run_on_cpu(worker, &works[i], i, "ioasid_bench/%u")))
			return 0;
	}
	for (i = 0; i < count; i++)
		wait_for_completion(&works[i].done);
	return (ktime_get_ns() - start) / LOOPS / count;
}

/* --- The table --------------------------------------------------------------------------------- */

static const u32 sizes[] = { 1, 1000, 1000000 };

static unsigned long pages_left(void)
{
	struct sysinfo info;

	si_meminfo(&info);
	return info.freeram;
}

static void measure(struct seq_file *m, const struct contender *c)
{
	unsigned long before = pages_left();
	u32 held = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 size = sizes[i];

		if (!hold(c, &held, size)) {
			seq_printf(m, "%s\tno more than %u ids\t0\t0\n", c->name, held);
			break;
		}
		seq_printf(m, "%s\talloc+free, lowest\t%u\t%llu\n", c->name, size,
			   alloc_free(c, size, false));
		seq_printf(m, "%s\talloc+free, random\t%u\t%llu\n", c->name, size,
			   alloc_free(c, size, true));
		if (!c->find)
			continue;
		seq_printf(m, "%s\tfind+get, sequential\t%u\t%llu\n", c->name, size,
			   find(c, size, false));
		seq_printf(m, "%s\tfind+get, random\t%u\t%llu\n", c->name, size, find(c, size, true));
	}
	seq_printf(m, "%s\tbytes an id\t%u\t%lu\n", c->name, held,
		   (before - pages_left()) * PAGE_SIZE / held);
	release(c, held);
	seq_printf(m, "%s\talloc+free on %u CPUs\t0\t%llu\n", c->name, num_online_cpus(),
		   on_all_cpus(c));
	rcu_barrier();
}

static int ioasid_bench_show(struct seq_file *m, void *unused)
{
	int i;

	set = ioasid_set_alloc(NULL, 0, IOASID_SET_TYPE_NULL);
	if (IS_ERR(set))
		return PTR_ERR(set);
	for (i = 0; i < ARRAY_SIZE(contenders); i++)
		measure(m, &contenders[i]);
	return ioasid_set_free(set);
}
DEFINE_SHOW_ATTRIBUTE(ioasid_bench);

static struct dentry *file;

static int __init bench_init(void)
{
	file = debugfs_create_file("ioasid_bench", 0400, NULL, NULL, &ioasid_bench_fops);
	return 0;
}

static void __exit bench_exit(void)
{
	debugfs_remove(file);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("Benchmark of ioasid against the XArray and the IDA");
MODULE_LICENSE("GPL");
